// Fuzzing of the store that processes meet at: its parsers, and its sessions without sockets.
//
// With clang and libFuzzer (what a ten-minute run takes):
//   cmake -S . -B build/fuzz -DCMAKE_CXX_COMPILER=clang++ -DSHARDGRAD_FUZZ=ON
//   cmake --build build/fuzz --target store_fuzz
//   mkdir corpus  # SHARDGRAD_FUZZ_SEEDS: valid inputs are written there, to start from
//   SHARDGRAD_FUZZ_SEEDS=corpus build/fuzz/bin/store_fuzz -max_total_time=600 -max_len=4096 corpus
//   build/fuzz/bin/store_fuzz crash-...  # replays what it found
// Without libFuzzer (any compiler) store_fuzz is driver.cpp's program: the same checks on random
// changes of the valid inputs, with a seed always the same ones; or on files:
//   build/release/bin/store_fuzz SECONDS [SEED]
//   build/release/bin/store_fuzz crash-...
// CTest has a run of five seconds: ctest -L fuzz.
//
// An input's first byte chooses what it is: bytes for a parser, or steps of a job of three ranks.
#include "tests/fuzz/store_fuzz.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>

#include "core/check.h"
#include "dist/processes/store_session.h"

namespace sg::dist {
namespace {

using namespace store;

// A check that stays in every build: libFuzzer and driver.cpp report the input.
void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "store_fuzz: %s\n", what);
  std::abort();
}

const std::string kToken = "token";

JobIdentity job_of(int rank) { return {kToken, rank, 3, "job", "c0ffee", 0}; }

std::string hello_for(const Nonce& nonce) {
  Hello hello;
  hello.mac = client_proof(kToken, nonce, hello.nonce, kStoreVersion);
  return encode(hello);
}

std::string join_of(int rank, int attempt = 0) {
  const JobIdentity who = job_of(rank);
  return encode(Message{.type = MessageType::join,
                        .rank = who.rank,
                        .world_size = who.world_size,
                        .job = who.job,
                        .configuration = who.configuration,
                        .attempt = attempt});
}

// What is accepted must be what its own encoding gives.
template <class T>
void parse_fixed(Bytes in, std::size_t size) {
  T value;
  const Parse got = parse(in, value);
  require(got != Parse::ok || in.size() >= size, "accepted too few bytes");
  require(got != Parse::more || in.size() < size, "wants more than there is");
  if (got != Parse::ok) return;
  const std::string again = encode(value);
  require(std::equal(again.begin(), again.end(), in.begin(), in.begin() + size),
          "a handshake's encoding differs from what was parsed");
}

void parse_messages(Bytes in, std::size_t limit) {
  for (;;) {
    Message message;
    std::size_t used = 0;
    if (parse_message(in, message, used, limit) != Parse::ok) return;
    require(used >= 9 && used <= in.size() && used <= limit + 4, "a message of a wrong size");
    const std::string again = encode(message);
    require(again.size() == used && std::equal(again.begin(), again.end(), in.begin()),
            "a message's encoding differs from what was parsed");
    in = in.subspan(used);
  }
}

// All that a session gives out must be what a client can read.
void check_output(const std::string& output) {
  Bytes out(output);
  Greeting greeting;
  require(parse(out, greeting) == Parse::ok, "no greeting");
  out = out.subspan(kGreetingBytes);
  if (out.empty()) return;
  Verdict verdict;
  require(parse(out, verdict) == Parse::ok, "no verdict");
  out = out.subspan(kVerdictBytes);
  require(verdict.status == Status::welcome || out.empty(), "something follows a refusal");
  while (!out.empty()) {
    Message message;
    std::size_t used = 0;
    require(parse_message(out, message, used) == Parse::ok, "no message");
    require(message.type >= MessageType::done, "a message that is a rank's to send");
    out = out.subspan(used);
  }
}

// One job and the output of its sessions so far; run twice with bytes cut differently.
class Play {
 public:
  explicit Play(std::size_t chunk) : job_(job_of(0)), chunk_(chunk) {
    for (int i = 0; i < kSessions; ++i) open(i);
  }

  // Steps: a byte for session and action, a byte for how many bytes follow.
  std::string run(Bytes in) {
    while (in.size() >= 2) {
      const int i = in[0] & 3;
      const int action = static_cast<unsigned char>(in[0]) >> 2 & 7;
      const std::size_t size =
          std::min<std::size_t>(static_cast<unsigned char>(in[1]), in.size() - 2);
      const Bytes bytes = in.subspan(2, size);
      in = in.subspan(2 + size);
      if (action == 0) {
        reopen(i, "its connection ended");
      } else if (action == 1) {
        feed(i, hello_for(nonce_of(i)));
      } else if (action == 2) {
        feed(i, hello_for(nonce_of(i)) + join_of(i));
      } else if (action == 3) {
        sessions_[i]->close("it is late");
      } else {
        feed(i, bytes);
      }
      if (sessions_[i]->closing()) reopen(i, sessions_[i]->reason());
      check_job();
    }
    for (int i = 0; i < kSessions; ++i) reopen(i, "the end");
    require(job_.present() == 0, "a rank is present without a session");
    return all_;
  }

 private:
  static constexpr int kSessions = 4;

  static Nonce nonce_of(int i) {
    Nonce nonce{};
    nonce[0] = static_cast<char>(i);
    return nonce;
  }

  void open(int i) {
    sessions_[i] = std::make_unique<Session>(job_, "peer", nonce_of(i), Session::Time{});
  }

  void reopen(int i, const std::string& reason) {
    job_.remove(*sessions_[i], reason);
    check_output(sessions_[i]->output());
    all_ += sessions_[i]->output();
    open(i);
  }

  void feed(int i, Bytes bytes) {
    Session& session = *sessions_[i];
    while (!bytes.empty() && session.wants() > 0) {
      const Bytes part = bytes.first(std::min({bytes.size(), chunk_, session.wants()}));
      session.feed(part, Session::Time{});
      bytes = bytes.subspan(part.size());
    }
  }

  void check_job() const {
    int joined = 0;
    for (const auto& session : sessions_) joined += session->joined();
    require(job_.present() <= joined, "more ranks are present than have joined");
    require(job_.ready() == job_.missing().empty(), "ready with missing ranks");
  }

  StoreJob job_;
  std::size_t chunk_;
  std::unique_ptr<Session> sessions_[kSessions];
  std::string all_;
};

std::string step(int session, int action, const std::string& bytes = "") {
  std::string out{static_cast<char>(session | action << 2), static_cast<char>(bytes.size())};
  return out + bytes;
}

}  // namespace

void fuzz_store(Bytes in) {
  if (in.empty()) return;
  const int kind = in[0] & 7;
  in = in.subspan(1);
  if (kind == 0) return parse_fixed<Greeting>(in, kGreetingBytes);
  if (kind == 1) return parse_fixed<Hello>(in, kHelloBytes);
  if (kind == 2) return parse_messages(in, kMaxFrame);
  if (kind == 3) return parse_messages(in, kMaxJoin);
  if (kind == 4) return parse_fixed<Verdict>(in, kVerdictBytes);
  const std::string whole = Play(65536).run(in);
  require(whole == Play(1).run(in), "the output depends on how the input is cut");
}

std::vector<std::string> store_seeds() {
  const Nonce nonce{};
  std::vector<std::string> seeds;
  seeds.push_back('\0' + encode(Greeting{}));
  seeds.push_back('\1' + hello_for(nonce));
  seeds.push_back('\4' + encode(Verdict{kStoreVersion, Status::wrong_token, Mac{}}));
  seeds.push_back('\3' + join_of(1));
  std::string all_types;
  std::string talk = '\5' + step(0, 2) + step(1, 2) + step(2, 2) + step(3, 4, hello_for(nonce));
  for (const int type : {1, 2, 3, 4, 5, 6, 7, 65, 66, 67, 68, 69, 70, 71}) {
    const Message message{.type = static_cast<MessageType>(type),
                          .request = 7,
                          .rank = 1,
                          .world_size = 3,
                          .postings = 41,
                          .key = "key",
                          .value = "value",
                          .text = "text",
                          .job = "job",
                          .configuration = "c0ffee",
                          .attempt = 1};
    all_types += encode(message);
    seeds.push_back('\2' + encode(message));
    talk += step(type % 3, 4, encode(message)) + step((type + 1) % 3, 4, encode(message));
  }
  seeds.push_back('\2' + all_types);
  seeds.push_back(talk);
  const std::string get = encode(Message{.type = MessageType::get, .request = 3, .key = "k"});
  const std::string set = encode(Message{.type = MessageType::set, .key = "k", .value = "v"});
  const std::string cancel = encode(Message{.type = MessageType::cancel, .request = 3});
  const std::string join = '\5' + step(0, 2) + step(1, 2);
  seeds.push_back(join + step(0, 4, get) + step(1, 4, set) + step(0, 4, get));
  seeds.push_back(join + step(0, 4, get) + step(0, 4, cancel) + step(0, 4, get) + step(0, 0) +
                  step(1, 4, set));
  const std::string leave = encode(Message{.type = MessageType::leave, .postings = 41});
  seeds.push_back(join + step(0, 4, leave) + step(0, 4, get) + step(0, 0) + step(1, 4, set));
  seeds.push_back(join + step(0, 4, get) + step(1, 3) + step(2, 2) + step(2, 4, get));
  seeds.push_back(join + step(1, 0) + step(2, 1) + step(2, 4, join_of(1, 1)) + step(2, 4, get));
  return seeds;
}

}  // namespace sg::dist

// libFuzzer starts without inputs of its own; this writes ours where it is told.
extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const char* folder = std::getenv("SHARDGRAD_FUZZ_SEEDS");
  int number = 0;
  if (!folder) return 0;
  for (const std::string& seed : sg::dist::store_seeds()) {
    std::ofstream(fmt::format("{}/seed-{}", folder, number++), std::ios::binary) << seed;
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  sg::dist::fuzz_store({reinterpret_cast<const char*>(data), size});
  return 0;
}
