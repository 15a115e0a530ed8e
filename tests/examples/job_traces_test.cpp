// What a job leaves behind and lets others see: its last collectives where it fails, and never its
// secret.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <regex>
#include <sstream>

#include "tests/examples/jobs.h"

#if SG_GLOO

namespace sg::test {
namespace {

/// What rank `rank` said it was in when it lost another: "reduce_scatter of unit 1, fc (...)".
std::string lost_in(const std::string& err, int rank) {
  std::smatch match;
  const std::regex line(fmt::format(
      R"(\[rank{}\] .* lost in (\w+ [^\n]*\(\d+ x \w+, collective \d+\)), where)", rank));
  return std::regex_search(err, match, line) ? match[1].str() : "";
}

/// The collectives that rank `rank` has left in `logs`: the last 256 of all, the one that it was in
/// among them. (It may have started others by then.)
std::vector<std::string> expect_ring(const fs::path& logs, int rank, const std::string& err) {
  std::vector<std::string> ring =
      lines_of(read_file(logs / fmt::format("collectives.rank{}.txt", rank)));
  const std::string place = lost_in(err, rank);
  EXPECT_NE(place, "") << rank << ": " << err;
  EXPECT_LE(ring.size(), 256u);
  if (ring.empty()) {
    ADD_FAILURE() << "rank " << rank << " left no collectives\n" << err;
    return ring;
  }
  EXPECT_EQ(std::count(ring.begin(), ring.end(), place + ", unfinished"), 1)
      << rank << ": " << place;
  // Each has its number, and none is left out.
  const auto number = [](const std::string& line) {
    return std::stoul(line.substr(line.find("collective ") + 11));
  };
  for (std::size_t i = 1; i < ring.size(); ++i)
    EXPECT_EQ(number(ring[i]), number(ring[i - 1]) + 1) << ring[i];
  EXPECT_EQ(ring.size(), std::min(number(ring.back()) + 1, 256ul));
  return ring;
}

TEST(JobTraces, SurvivorsLeaveTheirLast256Collectives) {
  const fs::path logs = scratch("logs");
  Endless job(3, fmt::format("--log-dir {} --tee", logs.string()));
  // A step has several: a hundred of them have more than the ring.
  ASSERT_TRUE(eventually([&] { return count_of(read_file(job.metrics), "\"step\"") >= 100; }, 100));
  const pid_t rank_1 = process_of(job.metrics, 1);
  ASSERT_NE(rank_1, 0);
  ::kill(rank_1, SIGKILL);
  const Outcome outcome = job.process.wait();
  EXPECT_EQ(outcome.status, 137) << outcome.err;
  for (const int survivor : {0, 2})
    EXPECT_EQ(expect_ring(logs, survivor, outcome.err).size(), 256u) << survivor;
  EXPECT_FALSE(fs::exists(logs / "collectives.rank1.txt"));
}

#if SG_FAULTS

TEST(JobTraces, ASurvivorsCollectivesEndWithTheOneItWasIn) {
  const fs::path logs = scratch("logs");
  // The exchange of a step is waited for at once, and what was sent before has arrived.
  const Outcome outcome = with_fault(
      "delay300@rank2:control#3,kill@rank2:control#3", 3,
      fmt::format("--log-dir {} --tee {}", logs.string(), cifar("--plan zero3 --steps 20")));
  EXPECT_EQ(outcome.status, 137) << outcome.err;
  for (const int survivor : {0, 1}) {
    const std::vector<std::string> ring = expect_ring(logs, survivor, outcome.err);
    ASSERT_FALSE(ring.empty());
    EXPECT_LT(ring.size(), 256u);
    EXPECT_EQ(ring.back(), lost_in(outcome.err, survivor) + ", unfinished");
    EXPECT_TRUE(ring.back().starts_with("exchange (")) << ring.back();
    for (const std::string& line : ring)
      EXPECT_EQ(line.ends_with(", unfinished"), line == ring.back()) << line;
  }
}

#endif

/// The variable `name` of a process.
std::string variable_of(pid_t pid, const std::string& name) {
  std::istringstream variables(read_file(fmt::format("/proc/{}/environ", pid)));
  for (std::string entry; std::getline(variables, entry, '\0');)
    if (entry.starts_with(name + "=")) return entry.substr(name.size() + 1);
  return "";
}

/// All files of a folder, each with its name.
std::string files_of(const fs::path& folder) {
  std::string all;
  for (const auto& file : fs::recursive_directory_iterator(folder))
    all += file.path().filename().string() + "\n" + read_file(file.path()) + "\n";
  return all;
}

TEST(JobTraces, NoneHasTheToken) {
  for (const bool drawn : {true, false}) {
    SCOPED_TRACE(drawn ? "the launcher drew it" : "it was given");
    const fs::path logs = scratch(drawn ? "drawn" : "given");
    if (!drawn) ::setenv("SHARDGRAD_TOKEN", "5ecret-0f-this-job", 1);
    Endless job(3, fmt::format("--log-dir {} --tee", logs.string()));
    ::unsetenv("SHARDGRAD_TOKEN");
    ASSERT_TRUE(job.trains());
    const pid_t rank_1 = process_of(job.metrics, 1);
    const std::string token = variable_of(rank_1, "SHARDGRAD_TOKEN");
    ASSERT_GE(token.size(), 10u);
    EXPECT_EQ(token == "5ecret-0f-this-job", !drawn);
    // The launcher, its guardian and three ranks.
    const std::vector<int> all = processes_with(job.metrics);
    EXPECT_GE(all.size(), 5u);
    EXPECT_EQ(processes_with(token), std::vector<int>{});
    ::kill(rank_1, SIGKILL);
    const Outcome outcome = job.process.wait();
    EXPECT_EQ(outcome.status, 137) << outcome.err;
    const std::string left = files_of(logs);
    for (const char* file : {"rank0.out", "rank2.err", "collectives.rank0.txt", "lost in "})
      EXPECT_NE(left.find(file), std::string::npos) << file;
    for (const std::string& text : {outcome.out, outcome.err, left, read_file(job.metrics)})
      EXPECT_EQ(text.find(token), std::string::npos) << text;
    fs::remove(job.metrics);
  }
}

TEST(JobTraces, ARefusedTokenIsNotToldEither) {
  // Each has another one.
  const fs::path script = scratch("tokens.sh"), logs = scratch("logs");
  std::ofstream(script) << "export SHARDGRAD_TOKEN=5ecret-0f-$RANK; exec " << binary("linear")
                        << " --threads 1\n";
  const Outcome outcome = shell(launch(kOwn, 2) + fmt::format("--grace 1 --log-dir {} --tee sh {}",
                                                              logs.string(), script.string()));
  EXPECT_NE(outcome.status, 0);
  EXPECT_NE(outcome.err.find("token"), std::string::npos) << outcome.err;
  for (const std::string& text : {outcome.out, outcome.err, files_of(logs)})
    EXPECT_EQ(text.find("5ecret"), std::string::npos) << text;
}

TEST(JobTraces, InDebugModeASequenceIsComparedBeforeEachStep) {
  std::string bits[2];
  std::size_t steps[2], checks[2];
  for (const bool debug : {false, true}) {
    // It counts in the traffic of nobody, but in the list of collectives; such a list is left by a
    // job that fails after some steps.
    const fs::path file = scratch("debug.jsonl"), logs = scratch(debug ? "with" : "without");
    ::setenv("SHARDGRAD_DEBUG", debug ? "1" : "0", 1);
    Endless job(2, fmt::format("--log-dir {}", logs.string()));
    const Outcome whole =
        shell(launch(kOwn, 2) + cifar("--plan zero3 --steps 4 --metrics " + file.string()));
    const bool trains = job.trains();
    ::unsetenv("SHARDGRAD_DEBUG");
    EXPECT_EQ(whole.status, 0) << whole.err;
    bits[debug] = read_metrics(file).bits("zero3");
    ASSERT_TRUE(trains);
    ::kill(process_of(job.metrics, 1), SIGKILL);
    job.process.wait();
    const std::string ring = read_file(logs / "collectives.rank0.txt");
    checks[debug] = count_of(ring, "exchange (1 x i64");
    steps[debug] = count_of(ring, "exchange (") - checks[debug];
    fs::remove(job.metrics);
  }
  EXPECT_EQ(bits[0], bits[1]);
  EXPECT_NE(bits[0], "");
  EXPECT_GE(steps[0], 1u);
  EXPECT_EQ(checks[0], 0u);
  EXPECT_GE(steps[1], 1u);
  EXPECT_NEAR(static_cast<double>(checks[1]), static_cast<double>(steps[1]), 1);
}

}  // namespace
}  // namespace sg::test

#endif
