// What becomes of a training job when a rank, the launcher or the user ends it: nothing hangs, the
// cause is named, nothing stays behind.
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <fstream>
#include <random>
#include <regex>
#include <thread>

#include "tests/examples/jobs.h"

#if SG_GLOO

namespace sg::test {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

TEST(JobEnds, LauncherKilled) {
  Endless job(3);
  ASSERT_TRUE(job.trains());
  ASSERT_GE(processes_with(job.metrics).size(), 4u);
  job.process.signal(SIGKILL);
  EXPECT_TRUE(eventually([&] { return processes_with(job.metrics).empty(); }, 10));
  job.process.wait();
}

TEST(JobEnds, StopSignalsAtRandomMoments) {
  // From before the ranks know each other to the middle of training. No moment leaves a process or
  // takes longer than a step.
  std::vector<int> moments{3, 20, 60, 150, 400, 900};  // ms
  const unsigned seed = std::random_device()();
  std::mt19937 random(seed);
  // As many of 1 to 10 ms as of 100 to 1000.
  for (int i = 0; i < 6; ++i)
    moments.push_back(
        static_cast<int>(std::pow(10, std::uniform_real_distribution<>(0, 3)(random))));
  for (const int moment : moments) {
    SCOPED_TRACE(fmt::format("{} ms, of seed {}", moment, seed));
    Endless job(2);
    std::this_thread::sleep_for(milliseconds(moment));
    job.process.signal(SIGTERM);
    const Clock::time_point told = Clock::now();
    const Outcome outcome = job.process.wait();
    EXPECT_LT(Clock::now() - told, std::chrono::seconds(10));
    EXPECT_EQ(outcome.status, 143) << outcome.err;
    EXPECT_TRUE(eventually([&] { return processes_with(job.metrics).empty(); }, 5));
    EXPECT_EQ(outcome.err.find("lost"), std::string::npos) << outcome.err;
    fs::remove(job.metrics);
  }
}

// Three ranks that have joined; `late` is not ready for stop signals, and the others wait for it.
struct OneIsLate {
  explicit OneIsLate(int late)
      : mark(scratch("ready").string()),
        job("shardgrad", fmt::format("run --nproc-per-node 3 --grace 20 {} {} {}",
                                     binary("late_for_signals"), late, mark)) {
    ready = eventually([&] { return read_file(mark) == "..."; }, 60);
  }
  ~OneIsLate() { fs::remove(mark); }
  const std::string mark;
  Process job;
  bool ready = false;
};

std::string stopped_of(int rank, int late) {
  return fmt::format(
      "[rank{}] late_for_signals: stopped by a signal; rank {} had ended before the "
      "first collective was complete (",
      rank, late);
}

TEST(JobEnds, AStopSignalThatFindsOneRankNotReadyIsNoFailure) {
  for (const int late : {0, 2}) {
    // It ends just before its peers are told, or after that.
    for (const int delay : {0, 100}) {
      SCOPED_TRACE(fmt::format("{} {}", late, delay));
      OneIsLate all(late);
      ASSERT_TRUE(all.ready);
      if (delay > 0) {
        ::kill(process_of(all.mark, late), SIGTERM);
        std::this_thread::sleep_for(milliseconds(delay));
      }
      all.job.signal(SIGTERM);
      const Outcome outcome = all.job.wait();
      EXPECT_EQ(outcome.status, 143) << outcome.err;
      for (const int rank : {0, 1, 2})
        EXPECT_EQ(count_of(outcome.err, stopped_of(rank, late)), rank == late ? 0u : 1u)
            << outcome.err;
      EXPECT_EQ(outcome.err.find(" lost"), std::string::npos) << outcome.err;
    }
  }
}

TEST(JobEnds, ARankThatEndsByItselfBeforeTheFirstCollectiveHasFailed) {
  OneIsLate all(2);
  ASSERT_TRUE(all.ready);
  ::kill(process_of(all.mark, 2), SIGTERM);
  const Outcome outcome = all.job.wait();
  EXPECT_EQ(outcome.status, 143) << outcome.err;
  EXPECT_EQ(count_of(outcome.err, "rank 2 lost in exchange"), 2u) << outcome.err;
  EXPECT_EQ(outcome.err.find("stopped by a signal"), std::string::npos) << outcome.err;
}

// What is lost after the first collective was not ended for want of a handler.
TEST(JobEnds, ARankThatIsKilledAfterAStopSignalHasFailed) {
  Endless job(2, "--grace 20");  // the launcher's own signal would be the second
  ASSERT_TRUE(job.trains());
  const pid_t told = process_of(job.metrics, 0), killed = process_of(job.metrics, 1);
  ASSERT_TRUE(told != 0 && killed != 0);
  ::kill(killed, SIGSTOP);
  ::kill(told, SIGTERM);
  std::this_thread::sleep_for(milliseconds(200));  // it waits for the other one
  ::kill(killed, SIGKILL);
  const Outcome outcome = job.process.wait();
  EXPECT_EQ(outcome.status, 137) << outcome.err;
  EXPECT_EQ(count_of(outcome.err, "rank 1 lost in "), 1u) << outcome.err;
  EXPECT_EQ(outcome.err.find("stopped by a signal"), std::string::npos) << outcome.err;
}

TEST(JobEnds, AStopSignalInTrainingIsACleanEnd) {
  for (const int signal : {SIGTERM, SIGINT}) {
    SCOPED_TRACE(signal);
    Endless job(2);
    ASSERT_TRUE(job.trains());
    job.process.signal(signal);
    const Outcome outcome = job.process.wait();
    EXPECT_EQ(outcome.status, 128 + signal);
    EXPECT_NE(outcome.out.find("stopped by a signal after step "), std::string::npos)
        << outcome.out;
    EXPECT_EQ(outcome.err, "") << "nothing failed";
    EXPECT_TRUE(processes_with(job.metrics).empty());
    const MetricsFile metrics = read_metrics(job.metrics);
    ASSERT_EQ(metrics.summaries.size(), 1u);
    EXPECT_EQ(metrics.summaries[0].at("interrupted"), true);
    EXPECT_EQ(metrics.summaries[0].at("steps"), metrics.steps.size());
    fs::remove(job.metrics);  // the next one trains when it writes its own
  }
}

TEST(JobStarts, TwentyAtOnce) {
  const std::string one = launch(kOwn, 2) + binary("linear") + " --plan zero3 --threads 1";
  const std::string all = fmt::format(
      "for i in $(seq 20); do ({} && echo done) >{}/$i.txt 2>&1 & done; wait; "
      "cat {}/*.txt",
      one, scratch().string(), scratch().string());
  const fs::path script = scratch("all.sh");
  std::ofstream(script) << all << "\n";
  const Outcome outcome = shell("sh " + script.string());
  std::size_t done = 0;
  for (std::size_t at = 0; (at = outcome.out.find("\ndone\n", at)) != std::string::npos; ++at)
    ++done;
  EXPECT_EQ(done, 20u) << outcome.out;
}

class TwoHosts : public testing::TestWithParam<Launcher> {};
const Launcher kTorchrun{"torchrun", "torchrun", "--no-python --nproc-per-node {}"};
INSTANTIATE_TEST_SUITE_P(Launchers, TwoHosts, testing::Values(kOwn, kTorchrun, kMpirun),
                         [](const auto& info) { return std::string(info.param.name); });

// What starts two processes of `program` on each of the hosts $a and $b of a shell script, by its
// function `on`.
std::string on_both(const Launcher& l, const std::string& program) {
  if (l.name != std::string("mpirun"))
    return fmt::format(
        "run='{} --nnodes 2 --master-addr 10.91.0.1 --master-port 29500'\n"
        "on $b $run --node-rank 1 {} & second=$!\n"
        "on $a $run --node-rank 0 {}\n"
        "wait $second\n",
        launch(l, 2), program, program);
  // It starts what it needs on the other host by a program, which is ssh elsewhere.
  const fs::path agent = scratch("agent.sh");
  std::ofstream(agent)
      << "#!/bin/sh\nshift\nexec nsenter --net=/proc/$HOST_B/ns/net sh -c \"$*\"\n";
  fs::permissions(agent, fs::perms::owner_all);
  return fmt::format(
      "export HOST_B=$b MASTER_ADDR=10.91.0.1\n"
      "on $a {} --mca plm_rsh_agent {} --host 10.91.0.1:2,10.91.0.2:2 "
      "-x SHARDGRAD_TOKEN -x SHARDGRAD_DEADLINE -x MASTER_ADDR {}\n",
      launch(l, 4), agent.string(), program);
}

// Two network namespaces with a cable between them are two hosts.
TEST_P(TwoHosts, HaveTheBitsOfThreads) {
  const Launcher& l = GetParam();
  if (l.command != nullptr && !installed(l.command))
    GTEST_SKIP() << l.command << " is not installed";
  if (!installed("ip") || !installed("nsenter"))
    GTEST_SKIP() << "needs ip (iproute2) and nsenter (util-linux)";
  if (std::system("unshare --net true 2>/dev/null") != 0)
    GTEST_SKIP() << "this user may make no network namespaces";
  // Both are unnamed: they end with the script, whatever becomes of it.
  const fs::path metrics = scratch("hosts.jsonl");
  const std::string program =
      cifar("--plan all --steps 2 --batch-size 32 --metrics " + metrics.string());
  const std::string text = fmt::format(
      "set -e\n"
      "unshare --net sleep 100 & a=$!\n"
      "unshare --net sleep 100 & b=$!\n"
      "trap 'kill $a $b' EXIT\n"
      "on() {{ pid=$1; shift; nsenter --net=/proc/$pid/ns/net \"$@\"; }}\n"
      "while [ \"$(readlink /proc/$a/ns/net)\" = \"$(readlink /proc/$$/ns/net)\" ] || "
      "[ \"$(readlink /proc/$b/ns/net)\" = \"$(readlink /proc/$$/ns/net)\" ]; do sleep 0.05; done\n"
      "on $a ip link add sg0 type veth peer name sg1\n"
      "on $a ip link set sg1 netns $b\n"
      "on $a ip addr add 10.91.0.1/24 dev sg0\n"
      "on $b ip addr add 10.91.0.2/24 dev sg1\n"
      "on $a ip link set sg0 up; on $a ip link set lo up\n"
      "on $b ip link set sg1 up; on $b ip link set lo up\n"
      "export SHARDGRAD_TOKEN=two-hosts SHARDGRAD_DEADLINE=30\n"
      "{}",
      on_both(l, program));
  const fs::path script = scratch("hosts.sh");
  std::ofstream(script) << text;
  const Outcome outcome = shell("sh " + script.string());
  if (outcome.status != 0 &&
      (outcome.err.find("RTNETLINK answers: Operation not permitted") != std::string::npos ||
       outcome.err.find("nsenter: reassociate") != std::string::npos))
    GTEST_SKIP() << "this user may not connect network namespaces: " << outcome.err;
  ASSERT_EQ(outcome.status, 0) << outcome.out << outcome.err;
  const MetricsFile hosts = read_metrics(metrics);
  const MetricsFile threads =
      train("--plan all --steps 2 --threads 1 --no-eval --batch-size 32 --ranks 4");
  ASSERT_EQ(hosts.plans(), threads.plans());
  for (const std::string& plan : threads.plans()) EXPECT_EQ(hosts.bits(plan), threads.bits(plan));
}

TEST(JobData, ARankThatRunsOutOfItIsNamed) {
  const Outcome outcome = shell(launch(kOwn, 3) + binary("uneven_data"));
  EXPECT_EQ(outcome.status, 1) << outcome.err;
  // Whoever notices first is the cause for the other.
  EXPECT_NE(outcome.err.find(" waits for rank 1 in collective "), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("but rank 1 has ended; every rank must run the same steps"),
            std::string::npos)
      << outcome.err;
}

const std::string kDeadly = "kill@rank0:step#0";

#if SG_FAULTS

TEST(Faults, AreInTheProgram) {
  EXPECT_EQ(shell("SHARDGRAD_FAULT=" + kDeadly + " " + binary("linear")).status, 137);
  EXPECT_NE(read_file(binary("linear")).find("SHARDGRAD_FAULT"), std::string::npos);
}

void expect_in(const Outcome& outcome, const std::string& part) {
  EXPECT_NE(outcome.err.find(part), std::string::npos) << "no '" << part << "' in\n" << outcome.err;
}

TEST(Faults, AKilledRankIsNamedWithItsCollectiveWithinTwoSeconds) {
  const fs::path temporary = scratch("tmp");
  fs::create_directories(temporary);
  ::setenv("SHARDGRAD_FAULT", "kill@rank2:reduce_scatter#200", 1);
  ::setenv("XDG_RUNTIME_DIR", temporary.c_str(), 1);
  const int port = free_port();
  Endless job(4, fmt::format("--grace 20 --master-port {}", port));
  ::unsetenv("SHARDGRAD_FAULT");
  ::unsetenv("XDG_RUNTIME_DIR");
  pid_t rank_2 = 0;
  ASSERT_TRUE(eventually([&] { return (rank_2 = process_of(job.metrics, 2)) != 0; }, 60));
  EXPECT_TRUE(listened_on(port));
  ASSERT_TRUE(eventually([&] { return !alive(rank_2); }, 60));
  const Clock::time_point killed = Clock::now();
  ASSERT_TRUE(eventually([&] { return count_of(job.process.err(), "rank 2 lost in ") >= 3; }, 20));
  EXPECT_LT(Clock::now() - killed, milliseconds(2000));
  const Outcome outcome = job.process.wait();
  EXPECT_EQ(outcome.status, 137) << outcome.err;
  for (const int survivor : {0, 1, 3})
    EXPECT_TRUE(std::regex_search(
        outcome.err,
        std::regex(fmt::format(R"(\[rank{}\] .*rank 2 lost in \w+ of unit \d+.*collective \d+)",
                               survivor))))
        << survivor << ": " << outcome.err;
  EXPECT_TRUE(std::regex_search(
      outcome.err, std::regex(R"(rank 2 lost in reduce_scatter of unit \d+.*collective \d+)")))
      << outcome.err;
  EXPECT_NE(outcome.err.find("shardgrad run: rank 2 (pid "), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("was killed by signal 9 (SIGKILL)"), std::string::npos) << outcome.err;
  EXPECT_TRUE(processes_with(job.metrics).empty()) << "no orphan";
  EXPECT_FALSE(listened_on(port)) << "no port";
  EXPECT_TRUE(fs::is_empty(temporary)) << "no file";
}

// Started by hand, ranks find each other by a file that rank 0 writes and removes when all are
// there.
TEST(Faults, AKilledRankLeavesNoTokenFile) {
  const fs::path temporary = scratch("tokens");
  fs::create_directories(temporary);
  const std::string program = binary("linear") + " --steps 1000000 --plan zero3 --threads 1";
  for (const int culprit : {0, 1}) {
    const Outcome outcome =
        shell(fmt::format("XDG_RUNTIME_DIR={0} WORLD_SIZE=2 SHARDGRAD_PORT={1} "
                          "SHARDGRAD_FAULT=kill@rank{2}:step#3 sh -c 'RANK=0 {3} & "
                          "until [ -n \"$(ls -A {0})\" ]; do sleep 0.01; done; RANK=1 {3} & wait'",
                          temporary.string(), free_port(), culprit, program));
    EXPECT_EQ(count_of(outcome.err, fmt::format("rank {} lost in ", culprit)), 1u) << outcome.err;
    EXPECT_TRUE(fs::is_empty(temporary)) << culprit;
  }
}

TEST(Faults, AStoppedRankIsNamedAtTheDeadline) {
  const fs::path metrics = scratch("stopped.jsonl");
  const Outcome outcome = with_fault(
      "stop@rank1:reduce_scatter#5", 3,
      "--shutdown-timeout 1 --grace 2 " + cifar("--steps 20 --metrics " + metrics.string()),
      "SHARDGRAD_DEADLINE=2");
  EXPECT_EQ(outcome.status, 1) << outcome.err;
  expect_in(outcome, "waited 2000 ms for rank 1 in reduce_scatter of unit ");
  expect_in(outcome, "rank 1 last entered ");
  EXPECT_EQ(count_of(outcome.err, "shardgrad run: rank "), 1u) << outcome.err;
  EXPECT_TRUE(processes_with(metrics.string()).empty()) << "the stopped one has gone, too";
}

TEST(Faults, MismatchesAreToldByBothSides) {
  struct Case {
    const char *fault, *of_rank_1;
  };
  for (const Case& c : {Case{"wrongshape@rank1:all_gather#2", "all_gather of unit "},
                        Case{"skip@rank1:all_gather#2", ""}}) {
    const Outcome outcome = with_fault(c.fault, 2, cifar("--plan zero3 --steps 8"));
    EXPECT_EQ(outcome.status, 1) << outcome.err;
    expect_in(outcome, "all ranks must run the same program");
    expect_in(outcome, std::string("rank 1 is in ") + c.of_rank_1);
    expect_in(outcome, "rank 0 is in ");
  }
}

// Rank 0 waits for rank 1 to read what it posted, rank 1 for what rank 0 would post next.
TEST(Faults, ARankThatSkipsAStepIsToldByBothSides) {
  const Outcome outcome = with_fault("skip@rank1:step#2", 2, cifar("--plan zero3 --steps 8"));
  EXPECT_EQ(outcome.status, 1) << outcome.err;
  expect_in(outcome, "[exchange] rank 0 is in exchange (2 x i64, collective ");
  expect_in(outcome, "[all_gather] rank 1 is in all_gather of unit 0, conv1");
  expect_in(outcome, "all ranks must run the same program");
}

TEST(Faults, RanksThatWaitForEachOtherEndAtTheDeadline) {
  // Units too large for a collective's first message: each waits for the other to take its own.
  const Outcome outcome =
      with_fault("skip@rank1:step#2", 2, cifar("--net mlp --batch-size 8 --plan zero3 --steps 8"),
                 "SHARDGRAD_DEADLINE=2");
  EXPECT_EQ(outcome.status, 1) << outcome.err;
  expect_in(outcome, "waited 2000 ms for ");
  expect_in(outcome, "every rank must run the same steps");
}

TEST(Faults, AThrowingRankIsTheCauseEverywhere) {
  for (const int culprit : {0, 1}) {
    const Outcome outcome = with_fault(fmt::format("throw@rank{}:step#3", culprit), 3,
                                       binary("linear") + " --plan zero2 --threads 1");
    EXPECT_EQ(outcome.status, 1) << outcome.err;
    const std::string cause = fmt::format("[fault] thrown at step 3 of rank {}", culprit);
    EXPECT_GE(
        count_of(outcome.err, fmt::format("another rank failed: rank {}: {}", culprit, cause)), 2u)
        << outcome.err;
    expect_in(outcome, fmt::format("shardgrad run: rank {} (pid ", culprit));
  }
}

TEST(Faults, ARankThatExitsGivesItsStatus) {
  const Outcome outcome =
      with_fault("exit@rank1:data#3", 2, "--grace 5 " + cifar("--plan zero1 --steps 20"));
  EXPECT_EQ(outcome.status, 3) << outcome.err;
  expect_in(outcome, "exited with status 3");
}

TEST(Faults, ALateRankChangesNoBit) {
  std::string bits[2];
  for (const bool late : {false, true}) {
    const fs::path file = scratch("late.jsonl");
    const std::string program = cifar("--plan zero3 --steps 4 --metrics " + file.string());
    const Outcome outcome =
        late ? with_fault("delay300@rank1:all_gather#3,delay200@rank0:data#2", 2, program)
             : shell(launch(kOwn, 2) + program);
    ASSERT_EQ(outcome.status, 0) << outcome.err;
    bits[late] = read_metrics(file).bits("zero3");
  }
  EXPECT_EQ(bits[0], bits[1]);
}

TEST(Faults, LossesThatAreNoNumbersEndTraining) {
  for (const char* fault : {"nan@rank1:step#2", "nan@rank0:data#3"}) {
    const Outcome outcome = with_fault(fault, 2, cifar("--plan zero2 --steps 20"));
    EXPECT_EQ(outcome.status, 1) << outcome.err;
    expect_in(outcome, "[train] the loss is nan at step");
  }
}

TEST(Faults, AWrongGradientMakesPlansDiffer) {
  const Outcome outcome =
      shell("SHARDGRAD_FAULT=wrong@rank1:step#1 " + cifar("--plan all --ranks 2 --steps 4"));
  EXPECT_EQ(outcome.status, 1) << outcome.err;
  EXPECT_NE(outcome.out.find("differ"), std::string::npos) << outcome.out;
  expect_in(outcome, "[compare] a bit or a byte differs");
}

TEST(Faults, WhatASiteCannotDoIsRefused) {
  const Outcome outcome = with_fault("wrongshape@rank0:step#0", 2, binary("linear"));
  EXPECT_EQ(outcome.status, 1) << outcome.err;
  expect_in(outcome, "[fault] SHARDGRAD_FAULT: the site 'step' knows no 'wrongshape'");
}

TEST(Faults, RestartsTheGroupAfterAKill) {
  // The fault strikes in the first life alone.
  const std::string body =
      "if [ $SHARDGRAD_RESTART_COUNT = 0 ]; then export SHARDGRAD_FAULT=kill@rank1:step#3; fi; "
      "exec " +
      binary("linear") + " --plan zero3 --threads 1";
  const fs::path script = scratch("restart.sh");
  std::ofstream(script) << body << "\n";
  const Outcome outcome = shell(launch(kOwn, 2) + "--max-restarts 1 sh " + script.string());
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("step 10"), std::string::npos) << outcome.out;
  EXPECT_TRUE(std::regex_search(
      outcome.err,
      std::regex(R"((^|\n)shardgrad run: rank 1 \(pid \d+\) was killed by signal 9 \(SIGKILL\); )"
                 R"(starting all again \(restart 1 of 1\)\n)")))
      << outcome.err;
  EXPECT_EQ(count_of(outcome.err, "shardgrad run: "), 1u) << outcome.err;
}

// Two launchers on one machine; that of the rank that is killed starts it again at once, the other
// when its own has failed.
TEST(Faults, RestartsTheGroupsOfTwoNodesAfterAKill) {
  for (const int culprit : {0, 1}) {
    SCOPED_TRACE(culprit);
    const fs::path rank = scratch("rank.sh"), nodes = scratch("nodes.sh");
    std::ofstream(rank) << "if [ $SHARDGRAD_RESTART_COUNT = 0 ]; then export "
                        << fmt::format("SHARDGRAD_FAULT=kill@rank{}:step#3; fi; exec {}", culprit,
                                       binary("linear"))
                        << " --plan zero3 --threads 1\n";
    const std::string node = fmt::format(
        "{} run --nnodes 2 --nproc-per-node 1 --max-restarts 1 --master-addr 127.0.0.1 "
        "--master-port {} --node-rank ",
        binary("shardgrad"), free_port());
    std::ofstream(nodes) << fmt::format(
        "export SHARDGRAD_TOKEN=two-nodes SHARDGRAD_DEADLINE=30\n"
        "{0} 1 sh {1} & second=$!\n{0} 0 sh {1} || exit 1\nwait $second\n",
        node, rank.string());
    const Outcome outcome = shell("sh " + nodes.string());
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_EQ(count_of(outcome.out, "step 10"), 1u) << outcome.out;
    EXPECT_EQ(count_of(outcome.err, "starting all again (restart 1 of 1)"), 2u) << outcome.err;
    EXPECT_EQ(count_of(outcome.err, "[store] refused"), 0u) << outcome.err;
  }
}

#else

TEST(Faults, AreNotCompiledIn) {
  // What kills it elsewhere, see Faults.AreInTheProgram.
  const Outcome outcome = shell("SHARDGRAD_FAULT=" + kDeadly + " " + binary("linear"));
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("step 10"), std::string::npos) << outcome.out;
  for (const char* program : {"linear", "cifar", "shardgrad"})
    EXPECT_EQ(read_file(binary(program)).find("SHARDGRAD_FAULT"), std::string::npos) << program;
}

#endif

}  // namespace
}  // namespace sg::test

#endif
