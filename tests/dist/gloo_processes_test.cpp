// Job over real processes without a launcher: this test starts itself as ranks. How they find each
// other by a file, and how they end.
#include "tests/dist/support.h"

#if SG_GLOO

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "dist/arrows.h"
#include "dist/job.h"
#include "dist/processes/store_socket.h"
#include "dist/processes/token_file.h"
#include "tests/support/files.h"
#include "tests/support/processes.h"

namespace sg::dist {
namespace {

namespace fs = std::filesystem;
using test::Variables;

void exchange_once(Rank&) {
  const std::uint64_t mine[] = {7};
  exchange(current_comm(), "control", mine);
}

// What a process does that a test below starts.
TEST(GlooMember, DISABLED_Runs) {
  const char* const text = std::getenv("SG_MEMBER");
  const std::string what = text != nullptr ? text : "";
  const char* const fd = std::getenv("SHARDGRAD_STORE_FD");
  const int store = fd != nullptr ? std::stoi(fd) : -1;
  Job job(1, {.threads = 1});
  EXPECT_EQ(std::getenv("SHARDGRAD_STORE_FD"), nullptr);
  if (store >= 0) {
    EXPECT_EQ(::fcntl(store, F_GETFD), -1) << "nobody needs it in a job of one";
  }
  job.run(exchange_once);
  if (what == "throws") fail("after the run");
  if (what == "twice") job.run(exchange_once);
}

class Member {
 public:
  Member(const fs::path& folder, const Variables& variables) : log_(folder.string() + ".log") {
    log_ += std::to_string(counter()++);
    Variables all = variables;
    all["XDG_RUNTIME_DIR"] = folder.string();
    const int log = ::open(log_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    pid_ = test::start(
        "/proc/self/exe",
        {"dist_test", "--gtest_filter=GlooMember.DISABLED_Runs", "--gtest_also_run_disabled_tests"},
        test::environment_with(all,
                               [](const auto& name) { return name.starts_with("SHARDGRAD_"); }),
        log, log);
    ::close(log);
  }
  ~Member() {
    if (!ended_) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    fs::remove(log_);
  }
  Member(const Member&) = delete;
  void signal(int number) const { ::kill(pid_, number); }
  /// The exit status, 128 + a signal, or -1 after 30 s.
  int wait() {
    for (int i = 0; i < 3000 && !ended_; ++i) {
      int raw = 0;
      if (::waitpid(pid_, &raw, WNOHANG) == pid_) {
        ended_ = true;
        status_ = test::exit_status(raw);
      } else {
        sleep_ms(10);
      }
    }
    return status_;
  }
  std::string said() const { return test::read_file(log_); }

 private:
  static int& counter() {
    static int count = 0;
    return count;
  }
  std::string log_;
  pid_t pid_ = -1;
  bool ended_ = false;
  int status_ = -1;
};

class GlooProcesses : public testing::Test {
 protected:
  GlooProcesses() {
    Fd free = store::listen_on("127.0.0.1", 0);
    port = store::own_port(free.get());
    const char* before = std::getenv("XDG_RUNTIME_DIR");
    before_ = before != nullptr ? before : "";
    ::setenv("XDG_RUNTIME_DIR", folder.c_str(), 1);  // for the TokenFiles of this process
  }
  ~GlooProcesses() override {
    if (before_.empty())
      ::unsetenv("XDG_RUNTIME_DIR");
    else
      ::setenv("XDG_RUNTIME_DIR", before_.c_str(), 1);
  }
  Variables rank(int r, const Variables& more = {}) const {
    Variables all{{"RANK", std::to_string(r)},
                  {"WORLD_SIZE", "2"},
                  {"SHARDGRAD_PORT", std::to_string(port)},
                  {"SHARDGRAD_DEADLINE", "25"}};
    for (const auto& [name, value] : more) all[name] = value;
    return all;
  }
  bool no_file() const { return fs::is_empty(folder); }
  bool file_comes() const {
    for (int i = 0; i < 2000 && no_file(); ++i) sleep_ms(5);
    return !no_file();
  }

  const test::TemporaryFolder temporary;
  const fs::path folder = temporary.path();
  int port;

 private:
  std::string before_;
};

TEST_F(GlooProcesses, AFileIsReadAgainUntilTheJobIsFound) {
  // It names a port where nobody listens, until its job ends and the right one comes.
  auto stale = std::make_unique<TokenFile>("", port);
  stale->write({1, "stale"});
  Member one(folder, rank(1));
  sleep_ms(4000);
  stale.reset();
  Member zero(folder, rank(0));
  const double seconds = seconds_of([&] {
    EXPECT_EQ(zero.wait(), 0) << zero.said();
    EXPECT_EQ(one.wait(), 0) << one.said();
  });
  EXPECT_LT(seconds, 15) << "long before the deadline";
  EXPECT_TRUE(no_file());
}

TEST_F(GlooProcesses, AStopSignalInTheJoinRemovesTheFile) {
  for (const int signal : {SIGTERM, SIGINT}) {
    Member zero(folder, rank(0));
    ASSERT_TRUE(file_comes());
    sleep_ms(200);
    zero.signal(signal);
    EXPECT_EQ(zero.wait(), 128 + signal) << zero.said();
    EXPECT_TRUE(no_file());
  }
}

TEST_F(GlooProcesses, TheFileOfAKilledJobIsNobodys) {
  {
    Member dead(folder, rank(0));
    ASSERT_TRUE(file_comes());
    sleep_ms(200);
    dead.signal(SIGKILL);
    EXPECT_EQ(dead.wait(), 128 + SIGKILL);
  }
  EXPECT_FALSE(no_file());
  EXPECT_HAS(error_of([&] { TokenFile("", port).read(milliseconds(200)); }),
             "rank 0 did not write the job's token to ");
  EXPECT_TRUE(no_file()) << "who finds it removes it";
}

TEST_F(GlooProcesses, AJobStartsBesideTheFileOfAKilledOne) {
  {
    Member dead(folder, rank(0));
    ASSERT_TRUE(file_comes());
    dead.signal(SIGKILL);
    dead.wait();
  }
  Member one(folder, rank(1)), zero(folder, rank(0));
  EXPECT_EQ(zero.wait(), 0) << zero.said();
  EXPECT_EQ(one.wait(), 0) << one.said();
  EXPECT_TRUE(no_file());
}

TEST_F(GlooProcesses, JobsOfOnePortDoNotTouchEachOthersFiles) {
  auto first = std::make_unique<TokenFile>("one", port),
       second = std::make_unique<TokenFile>("two", port);
  EXPECT_NE(first->path(), second->path());
  first->write({1, "a"});
  {
    TokenFile reader("one", port);
    EXPECT_EQ(reader.read(milliseconds(100)).token, "a");
  }
  EXPECT_EQ(TokenFile("one", port).read(milliseconds(100)).port, 1) << "a reader removed it";
  {
    TokenFile same("one", port);
    EXPECT_HAS(error_of([&] { same.write({2, "b"}); }), "is held by another job that starts with");
  }
  EXPECT_EQ(TokenFile("one", port).read(milliseconds(100)).token, "a") << "not its own";
  first.reset();
  EXPECT_TRUE(no_file());
}

TEST_F(GlooProcesses, TheFileIsForThisUserAlone) {
  const mode_t before = ::umask(0);
  TokenFile file("", port);
  file.write({1, "secret"});
  ::umask(before);
  struct stat status {};
  ASSERT_EQ(::lstat(file.path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode, S_IFREG | 0600u);
  EXPECT_EQ(status.st_uid, ::getuid());
  EXPECT_EQ(test::read_file(file.path()), "1 secret\n");
}

TEST_F(GlooProcesses, AFileThatOthersCanReadIsRefused) {
  for (const mode_t mode : {0644u, 0640u, 0620u, 0601u}) {
    SCOPED_TRACE(mode);
    TokenFile writer("", port), reader("", port);
    test::write_file(writer.path(), "1 planted\n");
    ASSERT_EQ(::chmod(writer.path().c_str(), mode), 0);
    const std::string refused = fmt::format(
        "[launch] {} belongs to somebody else or can be read by others; remove it, or set "
        "SHARDGRAD_TOKEN",
        writer.path());
    EXPECT_EQ(error_of([&] { writer.write({2, "secret"}); }), refused);
    EXPECT_EQ(error_of([&] { reader.read(milliseconds(200)); }), refused);
    EXPECT_EQ(test::read_file(writer.path()), "1 planted\n") << "no secret for others to read";
    fs::remove(writer.path());
  }
}

TEST_F(GlooProcesses, ALinkInItsPlaceIsNotFollowed) {
  const test::TemporaryFolder elsewhere;
  for (const bool dangling : {false, true}) {
    SCOPED_TRACE(dangling);
    TokenFile writer("", port), reader("", port);
    const std::string target = elsewhere / "target";
    if (!dangling) {
      test::write_file(target, "1 planted\n");
      fs::permissions(target, fs::perms::owner_read | fs::perms::owner_write);
    }
    fs::create_symlink(target, writer.path());
    EXPECT_EQ(error_of([&] {
                writer.write({2, "secret"});
              }),
              fmt::format("[launch] cannot write the job's token to {}: Too many levels of "
                          "symbolic links; set SHARDGRAD_TOKEN",
                          writer.path()));
    EXPECT_HAS(error_of([&] { reader.read(milliseconds(200)); }),
               "rank 0 did not write the job's token to ");
    EXPECT_EQ(fs::exists(target), !dangling);
    EXPECT_EQ(test::read_file(target), dangling ? "" : "1 planted\n");
    fs::remove(writer.path());
    fs::remove(target);
  }
}

TEST_F(GlooProcesses, TheMissingRankIsNamedAtTheDeadline) {
  Member zero(folder, rank(0, {{"WORLD_SIZE", "3"}, {"SHARDGRAD_DEADLINE", "1.5"}}));
  Member two(folder, rank(2, {{"WORLD_SIZE", "3"}, {"SHARDGRAD_DEADLINE", "1.5"}}));
  EXPECT_EQ(zero.wait(), 1);
  EXPECT_EQ(two.wait(), 1);
  for (const Member* member : {&zero, &two})
    EXPECT_HAS(member->said(), "rank 1 of 3 did not join within 1.5 s");
  EXPECT_TRUE(no_file());
}

TEST_F(GlooProcesses, AnExceptionBesideARunIsNoCleanEnd) {
  Member zero(folder, rank(0, {{"SG_MEMBER", "twice"}}));
  Member one(folder, rank(1, {{"SG_MEMBER", "throws"}}));
  EXPECT_EQ(zero.wait(), 1);
  EXPECT_EQ(one.wait(), 1);
  EXPECT_HAS(zero.said(), "because another rank failed: rank 1: an exception ended the program");
}

TEST_F(GlooProcesses, TheStoresSocketIsClosedInAJobOfOne) {
  const Fd listening = store::listen_on("127.0.0.1", 0);
  ::fcntl(listening.get(), F_SETFD, 0);
  Member alone(folder, rank(0, {{"WORLD_SIZE", "1"},
                                {"SHARDGRAD_STORE_FD", std::to_string(listening.get())}}));
  EXPECT_EQ(alone.wait(), 0) << alone.said();
}

}  // namespace
}  // namespace sg::dist
#endif  // SG_GLOO
