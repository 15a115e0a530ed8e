// What strangers and broken ranks do to the store, over real sockets: it drops them, says so, and
// goes on working for the others.
#if SG_GLOO
#include <fcntl.h>
#include <netinet/in.h>

#include "tests/dist/store_support.h"

namespace sg::dist {
namespace {

bool says(const TestStore& store, const std::string& part) {
  return comes_true([&] { return store.said->text().find(part) != std::string::npos; });
}

// The store works for its rank.
void expect_works(StoreClient& rank) {
  rank.set("works", bytes("yes"));
  EXPECT_EQ(text(rank.get("works", kSoon)), "yes");
  EXPECT_FALSE(rank.failure());
}

TEST(StoreStrangers, AnotherVersionIsRefusedBeforeTheToken) {
  const TestStore store(1);
  Raw raw(store.port());
  raw.greeting();
  raw.send(encode(Hello{.version = 1}));  // its proof is wrong, too
  Verdict verdict;
  ASSERT_EQ(parse(raw.take(kVerdictBytes), verdict), Parse::ok);
  EXPECT_EQ(verdict.status, Status::wrong_version);
  EXPECT_EQ(verdict.version, kStoreVersion);
  EXPECT_EQ(verdict.mac, Mac{});
  EXPECT_EQ(raw.take_all(), "");
  EXPECT_TRUE(says(store, ": it speaks protocol version 1, this store 2\n"));
}

TEST(StoreStrangers, AWrongProofGetsNoProof) {
  const TestStore store(1);
  Raw raw(store.port());
  raw.greeting();
  raw.send(encode(Hello{}));
  Verdict verdict;
  ASSERT_EQ(parse(raw.take(kVerdictBytes), verdict), Parse::ok);
  EXPECT_EQ(verdict.status, Status::wrong_token);
  EXPECT_EQ(verdict.mac, Mac{});
  EXPECT_EQ(raw.take_all(), "");
}

TEST(StoreStrangers, AProofIsGoodOnce) {
  const TestStore store(1);
  Raw first(store.port()), second(store.port());
  const std::string hello = first.hello();
  second.greeting();
  second.send(hello);  // overheard
  Verdict verdict;
  ASSERT_EQ(parse(second.take(kVerdictBytes), verdict), Parse::ok);
  EXPECT_EQ(verdict.status, Status::wrong_token);
}

TEST(StoreStrangers, GarbageIsDroppedAtOnce) {
  const TestStore store(1);
  const auto rank = store.client(identity(0, 1));
  for (const std::string& garbage :
       {std::string("GET / HTTP/1.1\r\nHost: example\r\n\r\n"), std::string(100'000, '\xff'),
        std::string(1, '\0'), std::string("sgstore")}) {
    Raw raw(store.port());
    raw.greeting();
    raw.send(garbage);
    if (garbage == "sgstore") continue;  // right so far: this one hangs up
    raw.take_all();
  }
  EXPECT_TRUE(says(store, "it sent bytes that are no greeting of a rank"));
  expect_works(*rank);
}

TEST(StoreStrangers, GarbageAfterTheProof) {
  const TestStore store(1);
  const auto rank = store.client(identity(0, 1));
  const std::string huge("\xff\xff\xff\xff", 4);  // a frame of 4 GiB, announced
  const std::string before = encode(Message{.type = MessageType::get, .key = "works"});
  for (const std::string& sent : {huge, before}) {
    Raw raw(store.port());
    raw.send(raw.hello() + sent);
    raw.take_all();
  }
  EXPECT_TRUE(says(store, "it sent bytes that are no message of the store"));
  EXPECT_TRUE(says(store, "it asked before it joined"));
  expect_works(*rank);
}

TEST(StoreStrangers, ASlowLorisIsDropped) {
  StoreServer::Options options;
  options.handshake_deadline = milliseconds(300);
  const TestStore store(2, options);
  const auto rank = store.client(identity(0, 2));
  Raw silent(store.port()), loris(store.port());
  const std::string hello = loris.hello() + Raw::join_frame(identity(1, 2));
  std::size_t sent = 0;
  const double seconds = seconds_of([&] {
    for (; sent < hello.size() && !loris.ended(); ++sent) {
      loris.send(hello.substr(sent, 1));
      rank->set("during", bytes("it"));
      sleep_ms(5);
    }
    silent.take(kGreetingBytes);
    silent.take_all();
  });
  EXPECT_LT(sent, hello.size());
  EXPECT_LT(seconds, 2);
  EXPECT_TRUE(says(store, "it had not proven itself and joined after 0.3 s"));
  expect_works(*rank);
}

TEST(StoreStrangers, CannotTakeAllPlaces) {
  const TestStore store(1);
  std::vector<std::unique_ptr<Raw>> idle;
  for (int i = 0; i < 150; ++i) idle.push_back(std::make_unique<Raw>(store.port()));
  const auto rank = store.client(identity(0, 1));
  expect_works(*rank);
  const auto open = std::count_if(idle.begin(), idle.end(), [](const auto& raw) {
    raw->take(kGreetingBytes);
    return !raw->ended();
  });
  EXPECT_LE(open, 4 + 64);
  EXPECT_GT(open, 32);
  EXPECT_TRUE(idle.front()->ended()) << "the oldest goes first";
}

TEST(StoreStrangers, AFloodOfOneHostLeavesTheOthersTheirPlaces) {
  const TestStore store(1);
  Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(0x7f000003);  // 127.0.0.3
  ASSERT_EQ(bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(store.port()));
  ASSERT_EQ(connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(fcntl(socket.get(), F_SETFL, O_NONBLOCK), 0);
  Raw slow(std::move(socket));
  const std::string hello = slow.hello();
  std::vector<std::unique_ptr<Raw>> idle;
  for (int i = 0; i < 150; ++i) idle.push_back(std::make_unique<Raw>(store.port()));
  idle.back()->greeting();  // all have been accepted
  EXPECT_FALSE(slow.ended()) << "the oldest, but of another host";
  EXPECT_TRUE(slow.send(hello));
  Verdict verdict;
  ASSERT_EQ(parse(slow.take(kVerdictBytes), verdict), Parse::ok);
  EXPECT_EQ(verdict.status, Status::welcome);
}

TEST(StoreStrangers, NoiseDoesNotHideAWrongToken) {
  const TestStore store(1);
  for (int i = 0; i < 40; ++i) {
    Raw raw(store.port());
    raw.send("GET / HTTP/1.1\r\n\r\n");
    raw.take_all();
  }
  EXPECT_TRUE(says(store, "(further ones are not told)"));
  JobIdentity wrong = identity(0, 1);
  wrong.token = "another";
  EXPECT_NE(error_of([&] { store.client(wrong); }), "no error");
  EXPECT_TRUE(says(store, "its job token is not that of the job"));
}

TEST(StoreRanks, ABrokenOneIsLostWithTheReason) {
  StoreServer::Options options;
  options.handshake_deadline = milliseconds(300);
  const std::string half = encode(Message{.type = MessageType::get, .key = "k"}).substr(0, 7);
  const std::string twice = encode(Message{.type = MessageType::get, .request = 5, .key = "none"});
  const struct {
    std::string sent, reason;
  } cases[] = {
      {half, "its message stayed incomplete for 0.3 s"},
      {std::string(40, '\xff'), "it sent bytes that are no message of the store"},
      {encode(Message{.type = MessageType::ready}),
       "it sent a message that is not a joined rank's to send"},
      {Raw::join_frame(identity(1, 2)), "it sent a message that is not a joined rank's to send"},
      {twice + twice, "it used the number of a waiting request twice"},
  };
  for (const auto& [sent, reason] : cases) {
    const TestStore store(2, options);
    const auto rank = store.client(identity(0, 2));
    Raw broken(store.port());
    broken.join(identity(1, 2));
    sleep_ms(1);
    EXPECT_TRUE(broken.send(sent));
    EXPECT_EQ(failure_of(*rank), "rank 1 lost: " + reason);
    EXPECT_HAS(broken.take_all(), "rank 1 lost: " + reason);  // it is told as well
  }
}

TEST(StoreRanks, AnIdleOneIsLeftAlone) {
  StoreServer::Options options;
  options.handshake_deadline = milliseconds(60);
  const TestStore store(2, options);
  const auto ranks = store.clients(2);
  sleep_ms(150);
  for (const auto& rank : ranks) expect_works(*rank);
}

TEST(StoreRanks, OneThatDoesNotReadHoldsUpNobody) {
  const TestStore store(2);
  const auto rank = store.client(identity(0, 2));
  rank->set("large", std::vector<char>(kMaxValue, 'v'));
  Raw deaf(store.port());
  deaf.join(identity(1, 2));
  std::string requests;
  for (std::uint32_t i = 1; i <= 60; ++i) {
    requests += encode(Message{.type = MessageType::get, .request = i, .key = "large"});
  }
  const double seconds = seconds_of([&] {
    deaf.send(requests);
    EXPECT_EQ(failure_of(*rank), "rank 1 lost: it does not read what the store sends");
    EXPECT_EQ(rank->get("large", kSoon).size(), kMaxValue);
  });
  EXPECT_LT(seconds, 10) << "somebody waited for the deaf one";
}

TEST(StoreRanks, TheirProofIsAskedOfTheStoreToo) {
  // A store that does not know the token: it takes whatever comes.
  const Fd listening = listen_on("127.0.0.1", 0);
  const auto serve = [&](const std::string& greeting, const std::string& verdict) {
    pollfd entry{listening.get(), POLLIN, 0};
    poll(&entry, 1, 5'000);
    const Fd socket(accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    std::string in, why;
    send_all(socket.get(), greeting, Deadline(kSoon), why);
    while (!verdict.empty() && in.size() < kHelloBytes &&
           receive_some(socket.get(), in, Deadline(kSoon), why)) {
    }
    send_all(socket.get(), verdict, Deadline(kSoon), why);
    while (receive_some(socket.get(), in, Deadline(kSoon), why)) {
    }
  };
  const auto join = [&](const std::string& greeting, const std::string& verdict,
                        milliseconds limit = kSoon) {
    std::thread store(serve, greeting, verdict);
    const std::string error = error_of(
        [&] { StoreClient("127.0.0.1", own_port(listening.get()), identity(1, 2), limit); });
    store.join();
    return error;
  };
  const int port = own_port(listening.get());
  const std::string greeting = encode(Greeting{});
  EXPECT_HAS(join(greeting, encode(Verdict{})),
             "the job token is not that of the job at 127.0.0.1");
  const auto versions = fmt::format(
      "[store] the store at 127.0.0.1:{} speaks protocol version 9, rank 1 version 2; run the same "
      "build everywhere",
      port);
  EXPECT_EQ(join(encode(Greeting{.version = 9}), ""), versions);
  EXPECT_EQ(join(greeting, encode(Verdict{.version = 9, .status = Status::wrong_version})),
            versions);
  EXPECT_EQ(join("SSH-2.0-OpenSSH_9.2p1\r\n", ""),
            fmt::format("[store] what listens at 127.0.0.1:{} is no store of a job; choose another "
                        "port with --master-port or SHARDGRAD_PORT",
                        port));
  EXPECT_HAS(join("", "", milliseconds(100)),
             "within 0.1 s: it accepts the connection and then says nothing");
}

TEST(StoreRanks, AStoreThatStopsAmidAMessageIsLost) {
  const Fd listening = listen_on("127.0.0.1", 0);
  const std::jthread store([&] {
    pollfd entry{listening.get(), POLLIN, 0};
    poll(&entry, 1, 5'000);
    const Fd socket(accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    std::string in, why;
    const Greeting greeting;
    send_all(socket.get(), encode(greeting), Deadline(kSoon), why);
    while (in.size() < kHelloBytes && receive_some(socket.get(), in, Deadline(kSoon), why)) {
    }
    Hello hello;
    EXPECT_EQ(parse(in, hello), Parse::ok);
    const Mac proof = server_proof(kTestToken, greeting.nonce, hello.nonce);
    std::string out = encode(Verdict{.mac = proof}) + encode(Message{.type = MessageType::done});
    // A whole message and half of the next one.
    const std::string failed =
        encode(Message{.type = MessageType::failed, .rank = 0, .text = "the disk is full"});
    out += encode(Message{.type = MessageType::ready}) + failed.substr(0, failed.size() / 2);
    send_all(socket.get(), out, Deadline(kSoon), why);
    while (receive_some(socket.get(), in, Deadline(milliseconds(20'000)), why)) {
    }
  });
  {
    const StoreClient client("127.0.0.1", own_port(listening.get()), identity(1, 2), kSoon);
    const Deadline end(milliseconds(15'000));
    while (!client.failure() && !end.passed()) sleep_ms(10);
    ASSERT_TRUE(client.failure()) << "half a message is waited for without end";
    EXPECT_HAS(client.failure()->text, " bytes of a message and then nothing)");
  }
}

}  // namespace
}  // namespace sg::dist
#endif  // SG_GLOO
