// The store's bytes without sockets: what is written is what is read, and a session does the same
// however its bytes are cut.
#if SG_GLOO
#include <set>

#include "tests/dist/store_support.h"

namespace sg::dist {
namespace {

Message full(MessageType type) {
  return {.type = type,
          .request = 0x01020304,
          .rank = -3,
          .world_size = 4,
          .postings = std::uint64_t{1} << 63,
          .key = std::string("k\0y", 3),
          .value = std::string(70'000, 'v'),
          .text = "text",
          .job = "job",
          .configuration = "c0ffee"};
}

constexpr MessageType kTypes[] = {MessageType::join,    MessageType::set,    MessageType::get,
                                  MessageType::wait,    MessageType::cancel, MessageType::fail,
                                  MessageType::leave,   MessageType::done,   MessageType::value,
                                  MessageType::refused, MessageType::ready,  MessageType::failed,
                                  MessageType::left,    MessageType::over};

TEST(StoreProtocol, EveryMessageComesBack) {
  for (const MessageType type : kTypes) {
    const std::string bytes = encode(full(type));
    Message message;
    std::size_t used = 0;
    ASSERT_EQ(parse_message(bytes + "next", message, used), Parse::ok);
    EXPECT_EQ(used, bytes.size());
    EXPECT_EQ(message.type, type);
    EXPECT_EQ(message.request, 0x01020304u);
    EXPECT_EQ(encode(message), bytes);
    for (std::size_t size = 0; size < std::min<std::size_t>(bytes.size(), 64); ++size) {
      EXPECT_EQ(parse_message(Bytes(bytes).first(size), message, used), Parse::more);
    }
  }
  const std::string bytes = encode(full(MessageType::failed));
  Message message;
  std::size_t used = 0;
  parse_message(bytes, message, used);
  EXPECT_EQ(message.rank, -3);
  EXPECT_EQ(message.text, "text");
}

TEST(StoreProtocol, LengthsThatLieAreBad) {
  const auto parsed = [](const std::string& bytes, std::size_t limit = kMaxFrame) {
    Message message;
    std::size_t used = 0;
    return parse_message(bytes, message, used, limit);
  };
  std::string bytes = encode(Message{.type = MessageType::get, .key = "key"});
  EXPECT_EQ(parsed(bytes, bytes.size() - 4), Parse::ok);
  EXPECT_EQ(parsed(bytes.substr(0, 4), bytes.size() - 5), Parse::bad) << "before the body is there";
  EXPECT_EQ(parsed(std::string("\x04\0\0\0", 4)), Parse::bad) << "no room for type and request";
  std::string longer = bytes;
  ++longer[0];
  EXPECT_EQ(parsed(longer), Parse::more);
  EXPECT_EQ(parsed(longer + "x"), Parse::bad) << "a byte that is no field's";
  std::string field = bytes;
  ++field[9];
  EXPECT_EQ(parsed(field), Parse::bad) << "a key that is longer than its frame";
  std::string type = bytes;
  type[4] = 99;
  EXPECT_EQ(parsed(type), Parse::bad);
  std::string name = encode(Message{.type = MessageType::join, .job = std::string(kMaxName, 'j')});
  EXPECT_EQ(parsed(name, kMaxJoin), Parse::ok);
  EXPECT_THROW(encode(Message{.type = MessageType::join, .job = std::string(kMaxName + 1, 'j')}),
               Error);
}

TEST(StoreProtocol, HandshakesComeBack) {
  const Nonce nonce = random_nonce();
  const std::string greeting = encode(Greeting{7, nonce});
  const std::string hello = encode(Hello{8, nonce, client_proof("t", nonce, nonce, 8)});
  const std::string verdict = encode(Verdict{9, Status::wrong_token, Mac{}});
  EXPECT_EQ(greeting.size(), kGreetingBytes);
  EXPECT_EQ(hello.size(), kHelloBytes);
  EXPECT_EQ(verdict.size(), kVerdictBytes);
  Greeting g;
  Hello h;
  Verdict v;
  ASSERT_EQ(parse(greeting, g), Parse::ok);
  ASSERT_EQ(parse(hello, h), Parse::ok);
  ASSERT_EQ(parse(verdict, v), Parse::ok);
  EXPECT_EQ(encode(g), greeting);
  EXPECT_EQ(encode(h), hello);
  EXPECT_EQ(encode(v), verdict);
  EXPECT_EQ(parse(Bytes(hello).first(kHelloBytes - 1), h), Parse::more);
  std::string other = verdict;
  other[kOpeningBytes] = 3;  // a status of another version
  EXPECT_EQ(parse(other, v), Parse::bad);
  EXPECT_EQ(parse(std::string("sgstorf"), g), Parse::bad) << "as soon as it is seen";
}

TEST(StoreProtocol, ProofsDependOnAllTheyCover) {
  Nonce one{}, two{};
  two[31] = 1;
  std::set<Mac> macs{client_proof("t", one, two, 1), client_proof("u", one, two, 1),
                     client_proof("t", two, one, 1), client_proof("t", one, one, 1),
                     client_proof("t", one, two, 2), server_proof("t", one, two),
                     server_proof("t", two, one),    server_proof("u", one, two)};
  EXPECT_EQ(macs.size(), 8u);
  EXPECT_TRUE(same(client_proof("t", one, two, 1), client_proof("t", one, two, 1)));
  EXPECT_FALSE(same(client_proof("t", one, two, 1), client_proof("t", one, two, 2)));
}

// HMAC-SHA256 of Python's hmac, with key "token": the proofs of two nonces, 32 bytes 0x01 and 0x02.
TEST(StoreProtocol, ProofsAreHmacSha256) {
  Nonce server, client;
  server.fill(1);
  client.fill(2);
  const auto hex = [](const Mac& mac) {
    std::string text;
    for (const char byte : mac) text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
    return text;
  };
  EXPECT_EQ(hex(client_proof("token", server, client, 1)),
            "83137f761954ac0ac8672aaffe3feee61333261741ab8151b3a50c4d81ba944e");
  EXPECT_EQ(hex(server_proof("token", server, client)),
            "eba3b8e7f4a632b8ba8fdcfa80665dcb8017f91444bc355df155a22742989343");
}

TEST(StoreProtocol, TokensAreRandomHex) {
  const std::string token = random_token();
  EXPECT_EQ(token.size(), 64u);
  EXPECT_EQ(token.find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_NE(token, random_token());
}

// A session whose rank has joined, with all that it said until then taken away.
struct Joined {
  Session session;
  Joined(StoreJob& job, int rank) : session(job, "test", Nonce{}, {}) {
    const auto& who = job.identity();
    Hello hello;
    hello.mac = client_proof(who.token, Nonce{}, hello.nonce, kStoreVersion);
    JobIdentity mine = who;
    mine.rank = rank;
    session.feed(encode(hello) + Raw::join_frame(mine), {});
    EXPECT_TRUE(session.joined());
    session.output().clear();
  }
  std::string ask(const Message& message) {
    session.feed(encode(message), {});
    return std::exchange(session.output(), {});
  }
};

TEST(StoreSession, DoesTheSameHoweverBytesAreCut) {
  const JobIdentity who = identity(0, 1);
  Hello hello;
  hello.mac = client_proof(who.token, Nonce{}, hello.nonce, kStoreVersion);
  std::string in = encode(hello) + Raw::join_frame(who);
  for (const MessageType type : {MessageType::get, MessageType::set, MessageType::get,
                                 MessageType::fail, MessageType::leave, MessageType::done}) {
    in += encode(full(type));
  }
  std::string outputs[3];
  for (const std::size_t step : {std::size_t{1}, std::size_t{7}, in.size()}) {
    StoreJob job(who);
    Session session(job, "test", Nonce{}, {});
    for (std::size_t at = 0; at < in.size(); at += step) {
      session.feed(Bytes(in).subspan(at, std::min(step, in.size() - at)), {});
    }
    EXPECT_TRUE(session.closing());
    EXPECT_EQ(session.reason(), "it sent a message that is not a joined rank's to send");
    outputs[step == 1 ? 0 : step == 7 ? 1 : 2] = session.output();
    EXPECT_EQ(job.present(), 0);
    job.remove(session, session.reason());
    EXPECT_EQ(job.failure()->text, "text");
  }
  EXPECT_GT(outputs[0].size(), 70'000u);
  EXPECT_EQ(outputs[0], outputs[1]);
  EXPECT_EQ(outputs[0], outputs[2]);
}

TEST(StoreSession, ReadsNoByteOfAStrangerPastTheHello) {
  StoreJob job(identity(0, 1));
  Session session(job, "test", Nonce{}, {});
  EXPECT_EQ(session.wants(), kHelloBytes);
  session.feed(encode(Hello{}).substr(0, 70), {});
  EXPECT_EQ(session.wants(), kHelloBytes - 70);
  session.feed(encode(Hello{}).substr(70), {});
  EXPECT_EQ(session.wants(), 0u);
  EXPECT_TRUE(session.closing());
}

TEST(StoreSession, IsLateWithAnIncompleteMessageAlone) {
  StoreJob job(identity(0, 1));
  const Session::Time start{};
  const milliseconds limit(100);
  Session stranger(job, "test", Nonce{}, start);
  stranger.feed(encode(Hello{}).substr(0, 20), start + milliseconds(90));
  EXPECT_FALSE(stranger.late(start + milliseconds(99), limit));
  EXPECT_TRUE(stranger.late(start + limit, limit)) << "bytes gain it no time";

  Joined rank(job, 0);
  Session& session = rank.session;
  const std::string get = encode(Message{.type = MessageType::get, .key = "key"});
  EXPECT_FALSE(session.due(limit)) << "nothing is under way";
  session.feed(get.substr(0, 5), start + milliseconds(10));
  session.feed(get.substr(5, 1), start + milliseconds(60));
  EXPECT_EQ(session.due(limit), start + milliseconds(110));
  EXPECT_TRUE(session.late(start + milliseconds(110), limit));
  session.feed(get.substr(6) + "\7", start + milliseconds(120));
  EXPECT_EQ(session.due(limit), start + milliseconds(220)) << "the next message's time";
}

TEST(StoreSession, AStoreHasRoomForSoMuch) {
  StoreJob job(identity(0, 1), {.keys = 3, .bytes = 100});
  Joined rank(job, 0);
  const std::string done = encode(Message{.type = MessageType::done});
  const auto set = [&](const std::string& key, std::size_t size) {
    return rank.ask({.type = MessageType::set, .key = key, .value = std::string(size, 'v')});
  };
  for (const char* key : {"1", "2", "3"}) EXPECT_EQ(set(key, 10), done);
  EXPECT_HAS(set("4", 0), "the store is full: 3 keys");
  EXPECT_EQ(set("1", 77), done) << "in the place of the 10";
  EXPECT_HAS(set("1", 78), "the store is full: 101 bytes, at most 100");
  EXPECT_HAS(rank.ask({.type = MessageType::get, .key = "1"}), std::string(77, 'v'));
  EXPECT_FALSE(rank.session.closing());
}

TEST(StoreSession, ARankWaitsForSoMany) {
  StoreJob job(identity(0, 2));
  Joined rank(job, 0), other(job, 1);
  const auto get = [](std::uint32_t i) {
    return Message{.type = MessageType::get, .request = i, .key = fmt::format("{}", i % 2)};
  };
  rank.ask({.type = MessageType::cancel, .request = 1});  // of nothing
  for (std::uint32_t i = 0; i < kMaxParked; ++i) ASSERT_EQ(rank.ask(get(i)), "");
  EXPECT_HAS(rank.ask(get(kMaxParked)), "4096 requests of this rank wait already");
  rank.ask({.type = MessageType::cancel, .request = 7});
  EXPECT_EQ(rank.ask(get(kMaxParked)), "");
  other.ask({.type = MessageType::set, .key = "0", .value = "v"});
  const std::size_t one = encode(Message{.type = MessageType::value, .value = "v"}).size();
  EXPECT_EQ(std::exchange(rank.session.output(), {}).size(), one * (kMaxParked / 2 + 1));
  job.remove(rank.session, "gone");  // what it waited for is forgotten
  other.ask({.type = MessageType::set, .key = "1", .value = "v"});
  EXPECT_EQ(rank.session.output(), "");
}

TEST(StoreSession, ManyMissingRanksAreCounted) {
  EXPECT_EQ(ranks_text({3}), "rank 3");
  std::vector<int> many(100);
  for (int i = 0; i < 100; ++i) many[i] = i;
  EXPECT_EQ(ranks_text(many),
            "ranks 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 and 84 more");
}

}  // namespace
}  // namespace sg::dist
#endif  // SG_GLOO
