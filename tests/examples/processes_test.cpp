// The example programs as processes: their losses, bytes and errors are those of threads.
#include <fmt/format.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/examples/processes.h"

#if SG_GLOO

namespace sg::test {
namespace {

class Launchers : public testing::TestWithParam<Launcher> {};

INSTANTIATE_TEST_SUITE_P(
    All, Launchers,
    testing::Values(kOwn,
                    Launcher{"torchrun", "torchrun",
                             "--no-python --standalone --nproc-per-node {}"},
                    kMpirun, Launcher{"srun", "srun", "--oversubscribe --overcommit -n {}"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_P(Launchers, EveryPlanHasTheBitsAndBytesOfThreads) {
  const Launcher& l = GetParam();
  if (l.command != nullptr && !installed(l.command))
    GTEST_SKIP() << l.command << " is not installed";
  if (l.name == std::string("srun") && shell("srun --immediate=5 -n 1 true").status != 0)
    GTEST_SKIP() << "srun is installed, but no Slurm cluster answers";
  const std::string options = fmt::format(
      "--data {} --plan all --steps 3 --threads 1 --no-eval --batch-size 32", small_data());
  const fs::path file = scratch("processes.jsonl");
  const Outcome outcome =
      shell(launch(l, 4) + binary("cifar") + " " + options + " --metrics " + file.string());
  ASSERT_EQ(outcome.status, 0) << outcome.out << outcome.err;
  const MetricsFile processes = read_metrics(file);
  const MetricsFile threads =
      train("--plan all --steps 3 --threads 1 --no-eval --batch-size 32 --ranks 4");
  ASSERT_EQ(processes.plans(), threads.plans());
  for (std::size_t i = 0; i < threads.summaries.size(); ++i) {
    const std::string plan = threads.plans()[i];
    EXPECT_EQ(processes.bits(plan), threads.bits(plan));
    for (const char* kind : {"parameters", "gradients", "optimizer", "gathered"})
      EXPECT_EQ(processes.summaries[i].at("bytes").at(kind),
                threads.summaries[i].at("bytes").at(kind))
          << plan << " " << kind;
    EXPECT_EQ(processes.summaries[i].at("traffic"), threads.summaries[i].at("traffic")) << plan;
  }
}

TEST(Processes, HaveTheBitsAndBytesOfThreadsInBf16Too) {
  const std::string options = "--dtype bf16 --plan all --steps 3 --threads 1 --no-eval ";
  const fs::path file = scratch("processes.jsonl");
  const Outcome outcome = shell(launch(kOwn, 2) + binary("cifar") + " " + options + "--data " +
                                small_data() + " --metrics " + file.string());
  ASSERT_EQ(outcome.status, 0) << outcome.out << outcome.err;
  const MetricsFile processes = read_metrics(file), threads = train(options + "--ranks 2");
  ASSERT_EQ(processes.plans(), threads.plans());
  for (std::size_t i = 0; i < threads.summaries.size(); ++i) {
    const std::string plan = threads.plans()[i];
    EXPECT_EQ(processes.bits(plan), threads.bits(plan)) << plan;
    EXPECT_EQ(processes.summaries[i].at("traffic"), threads.summaries[i].at("traffic")) << plan;
  }
}

TEST(Processes, RanksGivenBesidesAreIgnoredWithAMessage) {
  const Outcome outcome = shell(launch(kOwn, 2) + binary("linear") + " --ranks 3 --plan zero2");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find(
                "[rank0] --ranks is ignored: shardgrad run started 2 processes, each a rank"),
            std::string::npos)
      << outcome.out;
  EXPECT_EQ(outcome.out.find("[rank1]"), std::string::npos) << "rank 0 speaks for all";
}

TEST(Processes, WithoutALauncherTheTokenIsAFile) {
  // As torchrun does, but by hand; the ranks find each other by the port alone.
  const fs::path folder = scratch("tokens");
  fs::create_directories(folder);
  const std::string common =
      fmt::format("XDG_RUNTIME_DIR={} WORLD_SIZE=2 MASTER_PORT=0 SHARDGRAD_PORT={}",
                  folder.string(), 21'000 + ::getpid() % 8'000);
  const std::string program = binary("linear") + " --plan zero3 --threads 1";
  const Outcome outcome =
      shell(fmt::format("sh -c 'RANK=1 {0} {1} & RANK=0 {0} {1}; wait'", common, program));
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("step 10"), std::string::npos) << outcome.out << outcome.err;
  EXPECT_TRUE(fs::is_empty(folder)) << "no file is left";
}

TEST(Processes, APortInUseIsNoHindranceWhereAFileSaysWhichOtherOneItIs) {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener, 1), 0);
  ASSERT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const std::string common = fmt::format("WORLD_SIZE=2 SHARDGRAD_PORT={}", ntohs(address.sin_port));
  const std::string program = binary("linear") + " --plan ddp --threads 1";
  const Outcome outcome =
      shell(fmt::format("sh -c 'RANK=1 {0} {1} & RANK=0 {0} {1}; wait'", common, program));
  ::close(listener);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("step 10"), std::string::npos) << outcome.out << outcome.err;
}

TEST(Processes, OtherCommandLinesAreRefused) {
  const Outcome outcome =
      shell(launch(kOwn, 2) + "--grace 1 sh -c '" + binary("linear") + " --steps 1$LOCAL_RANK'");
  EXPECT_EQ(outcome.status, 1) << outcome.err;
  EXPECT_NE(outcome.err.find("configuration"), std::string::npos) << outcome.err;
}

TEST(Processes, AFailingRankStopsAllAndIsTheOneCause) {
  // A rank that dies between two collectives, at no agreed moment.
  const std::string body = fmt::format(
      "if [ $RANK = 2 ]; then {0} & child=$!; sleep 1.5; kill -9 $child; wait $child; exit 7; fi; "
      "exec {0}",
      binary("cifar") + " --data " + small_data() + " --epochs 100000 --no-eval --threads 1");
  const fs::path script = scratch("body.sh");
  std::ofstream(script) << body << "\n";
  const Outcome outcome = shell(launch(kOwn, 3) + "--grace 20 sh " + script.string());
  EXPECT_EQ(outcome.status, 7) << outcome.err;
  for (const char* rank : {"[rank0]", "[rank1]"})
    EXPECT_NE(
        outcome.err.find(fmt::format("{} cifar: failed: {} [", rank,
                                     rank == std::string("[rank0]") ? "[rank 0]" : "[rank 1]")),
        std::string::npos)
        << outcome.err;
  EXPECT_NE(outcome.err.find("rank 2 lost in "), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("shardgrad run: rank 2"), std::string::npos) << outcome.err;
}

}  // namespace
}  // namespace sg::test

#else
TEST(Processes, EveryPlanHasTheBitsAndBytesOfThreads) { GTEST_SKIP() << "built without Gloo"; }
#endif
