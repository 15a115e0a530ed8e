// Shared by the store's tests: a job's identity, a store that is quiet, and raw connections that
// misbehave.
#pragma once

#include <poll.h>
#include <sys/socket.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "dist/processes/store_client.h"
#include "dist/processes/store_server.h"
#include "tests/dist/support.h"

namespace sg::dist {

using namespace store;

inline const std::string kTestToken = "1f2e3d4c5b6a79880123456789abcdef";
inline constexpr milliseconds kSoon{5'000};  // for what must come; a test fails after it

inline JobIdentity identity(int rank, int world_size) {
  return {kTestToken, rank, world_size, "job-7", "c0ffee", 0};
}

/// The lines that a store says.
class Said {
 public:
  void add(const std::string& line) {
    const std::lock_guard lock(mutex_);
    text_ += line + "\n";
  }
  std::string text() const {
    const std::lock_guard lock(mutex_);
    return text_;
  }

 private:
  mutable std::mutex mutex_;
  std::string text_;
};

/// True once `done` is, false after kSoon.
inline bool comes_true(const std::function<bool()>& done) {
  const Deadline deadline(kSoon);
  while (!done()) {
    if (deadline.passed()) return false;
    sleep_ms(2);
  }
  return true;
}

/// A store on a free port of the loopback that keeps its lines to itself.
struct TestStore {
  std::shared_ptr<Said> said = std::make_shared<Said>();
  std::unique_ptr<StoreServer> server;

  explicit TestStore(int world_size, StoreServer::Options options = {}) {
    options.say = [said = said](const std::string& line) { said->add(line); };
    server = std::make_unique<StoreServer>(identity(0, world_size), std::move(options));
  }
  int port() const { return server->port(); }
  std::unique_ptr<StoreClient> client(const JobIdentity& who) const {
    return std::make_unique<StoreClient>("127.0.0.1", port(), who, kSoon);
  }
  std::vector<std::unique_ptr<StoreClient>> clients(int world_size) const {
    std::vector<std::unique_ptr<StoreClient>> all;
    for (int rank = 0; rank < world_size; ++rank) all.push_back(client(identity(rank, world_size)));
    return all;
  }
};

/// A connection that says what a test wants it to say.
class Raw {
 public:
  explicit Raw(int port) {
    std::string why;
    socket_ = connect_to("127.0.0.1", port, Deadline(kSoon), why);
    EXPECT_TRUE(socket_.open()) << why;
  }
  explicit Raw(Fd socket) : socket_(std::move(socket)) {}
  int fd() const { return socket_.get(); }
  /// False if the other end takes no more.
  bool send(const std::string& bytes) {
    std::string why;
    return send_all(fd(), bytes, Deadline(kSoon), why);
  }
  /// The next bytes; fewer if the connection ends.
  std::string take(std::size_t count) {
    std::string why;
    while (input_.size() < count && receive_some(fd(), input_, Deadline(kSoon), why)) {
    }
    const std::string taken = input_.substr(0, count);
    input_.erase(0, taken.size());
    return taken;
  }
  /// All that comes until the other end closes; records a failure if it does not.
  std::string take_all() {
    const Deadline deadline(kSoon);
    std::string why;
    while (receive_some(fd(), input_, deadline, why)) {
    }
    EXPECT_FALSE(deadline.passed()) << "the connection was not closed";
    return std::exchange(input_, {});
  }
  /// True if the other end has closed.
  bool ended() {
    char byte;
    const ssize_t n = recv(fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK);
  }
  Message take_message() {
    Message message;
    std::size_t used = 0;
    std::string why;
    while (parse_message(input_, message, used) == Parse::more &&
           receive_some(fd(), input_, Deadline(kSoon), why)) {
    }
    input_.erase(0, used);
    return message;
  }
  Greeting greeting() {
    Greeting greeting;
    EXPECT_EQ(parse(take(kGreetingBytes), greeting), Parse::ok);
    return greeting;
  }
  /// The hello of one who knows the token.
  std::string hello() {
    const Greeting greeting = this->greeting();
    Hello hello;
    hello.nonce = random_nonce();
    hello.mac = client_proof(kTestToken, greeting.nonce, hello.nonce, kStoreVersion);
    return encode(hello);
  }
  /// All that a rank says to get in.
  void join(const JobIdentity& who) {
    EXPECT_TRUE(send(hello()));
    Verdict verdict;
    EXPECT_EQ(parse(take(kVerdictBytes), verdict), Parse::ok);
    EXPECT_EQ(verdict.status, Status::welcome);
    EXPECT_TRUE(send(join_frame(who)));
    EXPECT_EQ(take_message().type, MessageType::done);
  }
  static std::string join_frame(const JobIdentity& who) {
    return encode(Message{.type = MessageType::join,
                          .rank = who.rank,
                          .world_size = who.world_size,
                          .job = who.job,
                          .configuration = who.configuration});
  }

 private:
  Fd socket_;
  std::string input_;
};

inline std::vector<char> bytes(const std::string& text) { return {text.begin(), text.end()}; }
inline std::string text(const std::vector<char>& bytes) { return {bytes.begin(), bytes.end()}; }

/// The text of a client's failure once it has one, "no failure" after kSoon.
inline std::string failure_of(const StoreClient& client) {
  comes_true([&] { return client.failure().has_value(); });
  const auto failure = client.failure();
  return failure ? failure->text : "no failure";
}

}  // namespace sg::dist
