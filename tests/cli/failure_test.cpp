// What happens when a process fails: one cause, its exit status, and nothing left.
#include <regex>

#include "tests/cli/support.h"

namespace sg::cli {
namespace {

void expect_cause(const Launch& launch, const std::string& pattern) {
  const Words own = own_lines(launch);
  ASSERT_EQ(own.size(), 1u) << launch.err();
  EXPECT_TRUE(std::regex_match(own[0], std::regex("shardgrad run: " + pattern))) << own[0];
  EXPECT_EQ(lines_of(launch.err()).back(), own[0]) << "the cause is not last";
}

// Shell: waits until both of two processes are here.
std::string barrier(const TemporaryFolder& folder, const std::string& name = "all") {
  const std::string here = folder / ("here." + name) + ".";
  return ": > " + here + "$RANK; while ! [ -e " + here + "0 -a -e " + here +
         "1 ]; do sleep 0.02; done; ";
}

double seconds_of(const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

TEST(Failure, NoneIsStatusZeroAndSilent) {
  Launch launch({"--nproc-per-node", "3", "true"});  // found through PATH
  EXPECT_EQ(launch.wait(), 0);
  EXPECT_EQ(launch.out() + launch.err(), "");
}

TEST(Failure, TheStatusIsTheRanks) {
  Launch launch(shell({"--nproc-per-node", "3", "--grace", "0"},
                      "[ $RANK = 1 ] && { echo '[op] sizes differ' >&2; exit 3; }; exec sleep 60"));
  EXPECT_EQ(launch.wait(), 3);
  expect_cause(launch,
               R"(rank 1 \(pid \d+\) exited with status 3; its last line: \[op\] sizes differ)");
}

TEST(Failure, WithoutALastLine) {
  Launch launch(shell({}, "exit 7"));
  EXPECT_EQ(launch.wait(), 7);
  expect_cause(launch, R"(rank 0 \(pid \d+\) exited with status 7)");
}

TEST(Failure, ASignalIsNamed) {
  Launch launch(shell({"--nproc-per-node", "4", "--grace", "0.1"},
                      "[ $RANK = 2 ] && kill -KILL $$; exec sleep 60"));
  EXPECT_EQ(launch.wait(), 137);
  expect_cause(launch, R"(rank 2 \(pid \d+\) was killed by signal 9 \(SIGKILL\))");
}

TEST(Failure, PeersThatFollowAreNoCause) {
  // They fail within the grace, by themselves, and say so.
  Launch launch(shell({"--nproc-per-node", "3", "--grace", "30"},
                      "[ $RANK = 1 ] && kill -SEGV $$; sleep 0.2; echo lost rank 1 >&2; exit 1"));
  double seconds = seconds_of([&] { EXPECT_EQ(launch.wait(), 139); });
  EXPECT_LT(seconds, 15) << "it waited for more than their end";
  expect_cause(launch, R"(rank 1 \(pid \d+\) was killed by signal 11 \(SIGSEGV\))");
  EXPECT_EQ(lines_of(launch.err()).size(), 3u) << launch.err();
}

TEST(Failure, PeersAreToldToStop) {
  const TemporaryFolder folder;
  Launch launch(shell({"--nproc-per-node", "2", "--grace", "0.1"},
                      "trap 'echo told; exit 0' TERM; " + barrier(folder) +
                          "[ $RANK = 0 ] && exit 4; while :; do sleep 0.05; done"));
  EXPECT_EQ(launch.wait(), 4);
  EXPECT_EQ(launch.out(), "[rank1] told\n");
}

TEST(Failure, OneThatIgnoresSigtermIsKilled) {
  const TemporaryFolder folder;
  Launch launch(shell({"--nproc-per-node", "2", "--grace", "0", "--shutdown-timeout", "0.5"},
                      "trap '' TERM; [ $RANK = 1 ] && echo $$; " + barrier(folder) +
                          "[ $RANK = 0 ] && exit 5; while :; do sleep 0.05; done"));
  const double seconds = seconds_of([&] { EXPECT_EQ(launch.wait(), 5); });
  EXPECT_GE(seconds, 0.5);
  EXPECT_LT(seconds, 5);
  expect_cause(launch, R"(rank 0 \(pid \d+\) exited with status 5)");
  EXPECT_FALSE(alive(std::stoi(launch.out().substr(8))));
}

TEST(Failure, AStoppedOneEndsToo) {
  Launch launch(shell({"--nproc-per-node", "2", "--grace", "0.3"},
                      "[ $RANK = 0 ] && exit 6; kill -STOP $$; sleep 60"));
  const double seconds = seconds_of([&] { EXPECT_EQ(launch.wait(), 6); });
  EXPECT_LT(seconds, 15) << "not until the shutdown timeout";
}

TEST(Failure, GrandchildrenDoNotStay) {
  Launch launch(
      shell({"--nproc-per-node", "2"}, "setsid sleep 60 & echo $!; sleep 61 & echo $!; exit 0"));
  EXPECT_EQ(launch.wait(), 0) << launch.err();
  const Words lines = lines_of(launch.out());
  ASSERT_EQ(lines.size(), 4u);
  for (const std::string& line : lines) EXPECT_FALSE(alive(std::stoi(line.substr(8)))) << line;
}

TEST(Failure, AProgramThatIsNotThere) {
  Launch launch({"--nproc-per-node", "2", "./nothing", "--help"});
  EXPECT_EQ(launch.wait(), 127);
  EXPECT_EQ(launch.err(), "shardgrad run: cannot start ./nothing: No such file or directory\n");
  Launch folder({"/"});
  EXPECT_EQ(folder.wait(), 127);
  EXPECT_EQ(folder.err(), "shardgrad run: cannot start /: Permission denied\n");
}

TEST(Failure, UsageIsStatusTwo) {
  Launch launch({"--nproc_per_nodes", "2", "true"});
  EXPECT_EQ(launch.wait(), 2);
  EXPECT_EQ(lines_of(launch.err()).size(), 1u);
  EXPECT_NE(launch.err().find("did you mean --nproc-per-node?"), std::string::npos) << launch.err();
}

TEST(Failure, RestartsStartAllAgain) {
  const TemporaryFolder folder;
  Launch launch(shell({"--nproc-per-node", "2", "--max-restarts", "2", "--grace", "0", "--log-dir",
                       folder.path().string(), "--tee"},
                      "echo start $SHARDGRAD_RESTART_COUNT port $MASTER_PORT $SHARDGRAD_TOKEN; "
                      "[ $SHARDGRAD_RESTART_COUNT = 2 ] && exit 0; " +
                          barrier(folder, "$SHARDGRAD_RESTART_COUNT") +
                          "[ $RANK = 1 ] && kill -KILL $$; exec sleep 60"));
  EXPECT_EQ(launch.wait(), 0) << launch.err();
  const Words own = own_lines(launch);
  ASSERT_EQ(own.size(), 2u) << launch.err();
  const std::regex first(R"(shardgrad run: rank 1 \(pid \d+\) was killed by signal 9 \(SIGKILL\); )"
                         R"(starting all again \(restart 1 of 2\))");
  EXPECT_TRUE(std::regex_match(own[0], first)) << own[0];
  EXPECT_NE(own[1].find("(restart 2 of 2)"), std::string::npos) << own[1];
  std::set<std::string> starts;  // the log is one file; each start has a token of its own
  for (const std::string& line : lines_of(read_file(folder / "rank0.out")))
    starts.insert(line.substr(line.rfind(' ')));
  EXPECT_EQ(starts.size(), 3u) << launch.out();
}

TEST(Failure, RestartsEnd) {
  Launch launch(shell({"--max-restarts", "1"}, "echo start; exit 3"));
  EXPECT_EQ(launch.wait(), 3);
  EXPECT_EQ(launch.out(), "[rank0] start\n[rank0] start\n");
  EXPECT_EQ(own_lines(launch).size(), 2u) << launch.err();
}

}  // namespace
}  // namespace sg::cli
