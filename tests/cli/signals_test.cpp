// Stop signals, and the death of the launcher itself.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>

#include "tests/cli/support.h"

namespace sg::cli {
namespace {

// Says ready; on SIGINT or SIGTERM says which and ends with `status`, or with 128 + the signal.
std::string obedient(const std::string& status = "") {
  return "trap 'echo got INT; exit " + (status.empty() ? "130" : status) +
         "' INT; trap 'echo got TERM; exit " + (status.empty() ? "143" : status) +
         "' TERM; echo ready; while :; do sleep 0.05; done";
}

std::set<pid_t> pids_in(const std::string& out) {
  std::set<pid_t> pids;
  for (const std::string& line : lines_of(out))
    if (const std::size_t at = line.find("pid "); at != std::string::npos)
      pids.insert(std::stoi(line.substr(at + 4)));
  return pids;
}

TEST(StopSignals, ArePassedOn) {
  for (const int signal : {SIGINT, SIGTERM}) {
    Launch launch(shell({"--nproc-per-node", "2"}, obedient()));
    ASSERT_TRUE(launch.says("ready", 2)) << launch.err();
    launch.signal(signal);
    EXPECT_EQ(launch.wait(), 128 + signal);
    const std::string got = signal == SIGINT ? "got INT" : "got TERM";
    for (const char* rank : {"[rank0] ", "[rank1] "})
      EXPECT_NE(launch.out().find(rank + got), std::string::npos) << launch.out();
    EXPECT_EQ(own_lines(launch), Words{}) << launch.err();
  }
}

TEST(StopSignals, ACleanEndIsStatusZero) {
  Launch launch(shell({"--nproc-per-node", "2", "--max-restarts", "3"}, obedient("0")));
  ASSERT_TRUE(launch.says("ready", 2));
  launch.signal(SIGTERM);
  EXPECT_EQ(launch.wait(), 0);
  EXPECT_EQ(own_lines(launch), Words{}) << launch.err();
}

TEST(StopSignals, ProcessesThatDieOfItAreNoFailure) {
  Launch launch(
      shell({"--nproc-per-node", "2", "--max-restarts", "3"}, "echo ready; exec sleep 60"));
  ASSERT_TRUE(launch.says("ready", 2));
  launch.signal(SIGINT);
  EXPECT_EQ(launch.wait(), 130);
  EXPECT_EQ(own_lines(launch), Words{}) << launch.err();
}

TEST(StopSignals, AFailureAfterOneIsACauseAndStartsNothingAgain) {
  Launch launch(shell({"--nproc-per-node", "2", "--max-restarts", "3"}, obedient("9")));
  ASSERT_TRUE(launch.says("ready", 2));
  launch.signal(SIGTERM);
  EXPECT_EQ(launch.wait(), 9);
  EXPECT_EQ(own_lines(launch).size(), 1u) << launch.err();
  EXPECT_NE(launch.err().find("exited with status 9"), std::string::npos) << launch.err();
}

TEST(StopSignals, OneThatIgnoresThemIsKilledAfterTheTimeout) {
  Launch launch(shell({"--nproc-per-node", "2", "--shutdown-timeout", "0.5"},
                      "[ $RANK = 1 ] && trap '' TERM; echo ready; while :; do sleep 0.05; done"));
  ASSERT_TRUE(launch.says("ready", 2));
  launch.signal(SIGTERM);
  EXPECT_EQ(launch.wait(), 137);
  EXPECT_NE(launch.err().find("did not end within 0.5 s of SIGTERM and was killed by signal 9"),
            std::string::npos)
      << launch.err();
}

TEST(StopSignals, ASecondOneKillsAtOnce) {
  Launch launch(shell({"--nproc-per-node", "2"},
                      "trap 'echo first' INT; echo ready; while :; do sleep 0.05; done"));
  ASSERT_TRUE(launch.says("ready", 2));
  launch.signal(SIGINT);
  ASSERT_TRUE(launch.says("first", 2));
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  launch.signal(SIGINT);
  EXPECT_EQ(launch.wait(), 130);
  EXPECT_EQ(own_lines(launch), Words{}) << launch.err();
}

TEST(StopSignals, APeerOfOneThatTheyEndedIsNoCause) {
  Launch launch(
      shell({"--nproc-per-node", "2"},
            "if [ $RANK = 1 ]; then trap 'echo 1 0 >&$SHARDGRAD_FAILURE_FD; exit 1' TERM; "
            "echo ready; while :; do sleep 0.02; done; fi; echo ready; exec sleep 60"));
  ASSERT_TRUE(launch.says("ready", 2));
  launch.signal(SIGTERM);
  EXPECT_EQ(launch.wait(), 143) << launch.err();
  EXPECT_EQ(own_lines(launch), Words{}) << launch.err();
}

// What a rank does that fails because of another: "1 0".
std::string blames(int rank, int another) {
  return "echo " + std::to_string(rank) + " " + std::to_string(another) +
         " >&$SHARDGRAD_FAILURE_FD; exit 1";
}

constexpr const char* kWaits = "echo ready; while :; do sleep 0.02; done";

TEST(StopSignals, AFailureAfterOneIsTheCauseBehindThoseOfItsPeers) {
  // Rank 1 fails because of rank 0; this because of a signal, or by itself and later.
  for (const bool by_itself : {false, true}) {
    Launch launch(shell({"--nproc-per-node", "3"},
                        "case $RANK in 0) trap '" +
                            std::string(by_itself ? "sleep 0.3; exit 7" : "exit 143") +
                            "' TERM;; 1) trap '" + blames(1, 0) +
                            "' TERM;; 2) trap 'sleep 0.6; exit 9' TERM;; esac; " + kWaits));
    ASSERT_TRUE(launch.says("ready", 3));
    launch.signal(SIGTERM);
    EXPECT_EQ(launch.wait(), by_itself ? 7 : 9) << launch.err();
    ASSERT_EQ(own_lines(launch).size(), 1u) << launch.err();
    EXPECT_TRUE(own_lines(launch)[0].starts_with(by_itself ? "shardgrad run: rank 0 (pid "
                                                           : "shardgrad run: rank 2 (pid "))
        << launch.err();
  }
}

TEST(StopSignals, AFailureBeforeOneStaysTheCause) {
  // Rank 0 fails because of rank 1, which does nothing of itself.
  for (const bool obeys : {true, false}) {
    Launch launch(shell({"--nproc-per-node", "2", "--grace", "15"},
                        "if [ $RANK = 0 ]; then echo pid $$; echo ready; " + blames(0, 1) +
                            "; fi; " +
                            (obeys ? std::string("trap 'exit 130' INT; ") + kWaits
                                   : std::string("echo ready; exec sleep 60"))));
    ASSERT_TRUE(launch.says("ready", 2));
    const pid_t rank_0 = *pids_in(launch.out()).begin();
    ASSERT_TRUE(eventually([&] { return !alive(rank_0); }, 5));
    std::this_thread::sleep_for(std::chrono::milliseconds(200));  // the launcher has seen it too
    launch.signal(SIGINT);
    EXPECT_EQ(launch.wait(), 1) << launch.err();
    ASSERT_EQ(own_lines(launch).size(), 1u) << launch.err();
    const std::string cause = own_lines(launch)[0];
    if (obeys) {
      EXPECT_EQ(cause, "shardgrad run: rank 0 (pid " + std::to_string(rank_0) +
                           ") exited with status 1");
    } else {
      EXPECT_TRUE(cause.starts_with("shardgrad run: rank 1 (pid ")) << cause;
      EXPECT_TRUE(
          cause.ends_with(") made its peers fail and did not end before signal 2 (SIGINT)"))
          << cause;
    }
  }
}

TEST(StopSignals, AtRandomMomentsOfTheStart) {
  for (int microseconds = 0; microseconds < 20'000; microseconds += 1'300) {
    Launch launch(shell({"--nproc-per-node", "2"}, "echo pid $$; exec sleep 60"));
    std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
    launch.signal(SIGTERM);
    const int status = launch.wait();  // before it waits for signals, it dies of them
    EXPECT_TRUE(status == 143 || status == 1000 + SIGTERM) << status << ": " << launch.err();
    for (const pid_t pid : pids_in(launch.out())) EXPECT_FALSE(alive(pid)) << pid;
  }
}

TEST(LauncherKilled, NoProcessStays) {
  Launch launch(
      shell({"--nproc-per-node", "3"},
            "echo pid $$; sleep 60 & echo pid $!; trap '' TERM INT HUP; echo ready; wait"));
  ASSERT_TRUE(launch.says("ready", 3));
  const std::set<pid_t> pids = pids_in(launch.out());
  ASSERT_EQ(pids.size(), 6u) << launch.out();
  for (const pid_t pid : pids) EXPECT_TRUE(alive(pid));
  launch.signal(SIGKILL);
  for (const pid_t pid : pids)
    EXPECT_TRUE(eventually([&] { return !alive(pid); }, 5)) << pid << " outlived the launcher";
  EXPECT_EQ(launch.wait(), 1000 + SIGKILL);  // and its pipes are closed: nobody holds them
}

TEST(LauncherKilled, NoDescendantInAGroupOrSessionOfItsOwnStays) {
  Launch launch(shell({"--nproc-per-node", "2"},
                      "setsid sh -c 'echo pid $$; trap \"\" TERM HUP; sleep 60; true' & "
                      "timeout 60 sh -c 'echo pid $$; sleep 60; true' & echo pid $$; wait"));
  ASSERT_TRUE(launch.says("pid", 6));
  const std::set<pid_t> pids = pids_in(launch.out());
  ASSERT_EQ(pids.size(), 6u) << launch.out();
  const int sessions = static_cast<int>(
      std::count_if(pids.begin(), pids.end(), [](pid_t pid) { return ::getsid(pid) == pid; }));
  EXPECT_EQ(sessions, 2) << "setsid made none: the test shows nothing";
  launch.signal(SIGKILL);
  for (const pid_t pid : pids)
    EXPECT_TRUE(eventually([&] { return !alive(pid); }, 5)) << pid << " outlived the launcher";
  EXPECT_EQ(launch.wait(), 1000 + SIGKILL);  // and its pipes are closed: nobody holds them
}

TEST(LauncherKilled, NothingStaysWhereTheKernelHasNoHandlesOfProcesses) {
  // In a process of its own: what it refuses itself it refuses all that it starts.
  const pid_t child = ::fork();
  if (child == 0) {
    sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pidfd_open, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog filter{.len = 4, .filter = program};
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
      ::_exit(77);
    if (::syscall(SYS_pidfd_open, ::getpid(), 0) != -1 || errno != ENOSYS) ::_exit(2);
    Launch launch(shell({}, "setsid sh -c 'echo pid $$; sleep 60; true' & echo pid $$; wait"));
    if (!launch.says("pid", 2)) ::_exit(3);
    launch.signal(SIGKILL);
    for (const pid_t pid : pids_in(launch.out()))
      if (!eventually([&] { return !alive(pid); }, 5)) ::_exit(4);
    ::_exit(0);
  }
  int raw = 0;
  ASSERT_EQ(::waitpid(child, &raw, 0), child);
  if (exit_status(raw) == 77) GTEST_SKIP() << "no system call can be refused here";
  EXPECT_EQ(exit_status(raw), 0);
}

TEST(LauncherKilled, NothingOfALauncherBelowItStays) {
  Launch launch(
      {"--nproc-per-node", "1", SG_BINARY_DIR "/shardgrad", "run", "--nproc-per-node", "2", "sh",
       "-c",
       "setsid sh -c 'echo pid $$; sleep 60; true' & sh -c 'echo pid $$; sleep 60; true' & "
       "echo pid $$; wait"});
  ASSERT_TRUE(launch.says("pid", 6));
  const std::set<pid_t> pids = pids_in(launch.out());
  ASSERT_EQ(pids.size(), 6u) << launch.out();
  launch.signal(SIGKILL);
  for (const pid_t pid : pids)
    EXPECT_TRUE(eventually([&] { return !alive(pid); }, 5)) << pid << " outlived the launchers";
  EXPECT_EQ(launch.wait(), 1000 + SIGKILL);
}

TEST(StopSignals, OneThatCannotDieIsNamedAndLeft) {
  // The end of a process that another one traces is shown to its parent only when the tracer has
  // seen it: to the launcher that is one which SIGKILL does not end.
  Launch launch(
      shell({"--nproc-per-node", "2", "--shutdown-timeout", "0.1"}, "echo pid $$; exec sleep 60"));
  ASSERT_TRUE(launch.says("pid", 2));
  const std::set<pid_t> pids = pids_in(launch.out());
  ASSERT_EQ(pids.size(), 2u);
  const pid_t held = *pids.begin();
  if (::ptrace(PTRACE_SEIZE, held, nullptr, nullptr) != 0) {
    launch.signal(SIGTERM);
    launch.wait();
    GTEST_SKIP() << "processes must not be traced here: " << std::strerror(errno);
  }
  const auto start = std::chrono::steady_clock::now();
  launch.signal(SIGTERM);
  const int status = launch.wait();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  ::waitpid(held, nullptr, __WALL);
  EXPECT_EQ(status, 137) << launch.err();
  EXPECT_LT(seconds.count(), 10);
  EXPECT_NE(launch.err().find("shardgrad run: process " + std::to_string(held) +
                              " did not end within 5 s of SIGKILL and is left behind"),
            std::string::npos)
      << launch.err();
}

TEST(Guardian, AStoppedOneHoldsUpNobody) {
  Launch launch(shell({}, "echo ready; sleep 1"));
  ASSERT_TRUE(launch.says("ready"));
  const auto guardian_of = [](pid_t parent) {
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      // "pid (name) state parent ..."
      const std::string stat = read_file(entry.path() / "stat"), name = "(shardgrad-guard)";
      const std::size_t at = stat.find(name);
      if (at == std::string::npos || stat.size() < at + name.size() + 4) continue;
      if (std::atoi(stat.c_str() + at + name.size() + 3) == parent)
        return std::stoi(entry.path().filename().string());
    }
    return -1;
  };
  pid_t guardian = -1;  // it names itself in its own time
  ASSERT_TRUE(eventually([&] { return (guardian = guardian_of(launch.pid())) > 0; }, 5));
  ASSERT_EQ(::kill(guardian, SIGSTOP), 0);
  EXPECT_EQ(launch.wait(), 0);
  EXPECT_FALSE(alive(guardian));
}

}  // namespace
}  // namespace sg::cli
