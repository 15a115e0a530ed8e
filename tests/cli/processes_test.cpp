// The launcher and a program of the library together: faults, as a user sees them.
#include <random>
#include <regex>

#include "tests/cli/support.h"

namespace sg::cli {
namespace {

#define NEEDS_LINEAR()                                   \
  if (!std::filesystem::exists(SG_BINARY_DIR "/linear")) \
  GTEST_SKIP() << "the example linear is not built (SHARDGRAD_EXAMPLES)"

// `linear` on n ranks for ever, each saying its process first.
Words training(int processes, const std::string& more = "", Words options = {}) {
  for (const std::string& word : {std::string("--nproc-per-node"), std::to_string(processes)})
    options.push_back(word);
  return shell(options, "echo pid $$; exec " SG_BINARY_DIR
                        "/linear --steps 1000000000 --plan zero3 --threads 1 " +
                            more);
}

pid_t pid_of(const Launch& launch, int rank) {
  const std::string start = "[rank" + std::to_string(rank) + "] pid ";
  for (const std::string& line : lines_of(launch.out()))
    if (line.starts_with(start)) return std::stoi(line.substr(start.size()));
  return -1;
}

int lines_with(const std::string& text, const std::string& start, const std::string& part) {
  int count = 0;
  for (const std::string& line : lines_of(text))
    count += line.starts_with(start) && line.find(part) != std::string::npos;
  return count;
}

class Processes : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(All, Processes, testing::Values("inline", "thread"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(Processes, AKillAtAnyMomentIsTheOneCauseAndNamedByEachSurvivor) {
  NEEDS_LINEAR();
  std::mt19937 random(7);
  for (int round = 0; round < 8; ++round) {
    SCOPED_TRACE(round);
    Launch launch(training(3, std::string("--executor ") + GetParam()));
    ASSERT_TRUE(launch.says("step ")) << launch.err();
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 30'000));
    const auto killed = std::chrono::steady_clock::now();
    ASSERT_EQ(::kill(pid_of(launch, 2), SIGKILL), 0);
    const auto told = [&] {
      for (const char* survivor : {"[rank0] ", "[rank1] "})
        if (lines_with(launch.err(), survivor, "rank 2 lost in ") == 0) return false;
      return true;
    };
    EXPECT_TRUE(launch.reads_until(told)) << launch.err();
    EXPECT_LT(std::chrono::steady_clock::now() - killed, std::chrono::seconds(2)) << launch.err();
    EXPECT_EQ(launch.wait(), 137) << launch.err();
    const Words own = own_lines(launch);
    ASSERT_EQ(own.size(), 1u) << launch.err();
    EXPECT_TRUE(std::regex_match(
        own[0],
        std::regex(R"(shardgrad run: rank 2 \(pid \d+\) was killed by signal 9 \(SIGKILL\))")))
        << own[0];
  }
}

TEST_P(Processes, ARankThatThrowsIsTheCauseWhicheverItIs) {
  NEEDS_LINEAR();
  for (const std::string rank : {"0", "1"}) {
    SCOPED_TRACE(rank);
    // Rank 0 keeps the store until the others have heard, and ends last.
    Launch launch(training(3, std::string("--executor ") + GetParam()),
                  {{"SHARDGRAD_FAULT", "throw@rank" + rank + ":reduce_scatter#5"}});
    const int status = launch.wait();
    if (launch.err().empty() && status != 1) GTEST_SKIP() << "built without SHARDGRAD_FAULTS";
    EXPECT_EQ(status, 1);
    const Words own = own_lines(launch);
    ASSERT_EQ(own.size(), 1u) << launch.err();
    EXPECT_TRUE(std::regex_match(
        own[0], std::regex("shardgrad run: rank " + rank +
                           R"( \(pid \d+\) exited with status 1; its last line: linear: failed: )" +
                           R"(.*\[fault\] thrown at reduce_scatter 5 of rank )" + rank + ".*")))
        << own[0];
  }
}

TEST(Blame, AClaimOfAPeerNamesTheCause) {
  // Rank 1 ends first, because of rank 0, which goes on for a while.
  Launch launch(shell({"--nproc-per-node", "2"},
                      "if [ $RANK = 1 ]; then echo 1 0 >&$SHARDGRAD_FAILURE_FD; exit 3; fi; "
                      "sleep 0.3; echo 0 0 >&$SHARDGRAD_FAILURE_FD; echo full >&2; exit 4"));
  EXPECT_EQ(launch.wait(), 4);
  EXPECT_NE(launch.err().find("shardgrad run: rank 0 (pid "), std::string::npos) << launch.err();
  EXPECT_NE(launch.err().find("exited with status 4; its last line: full"), std::string::npos);
}

TEST(Blame, OneThatDoesNotEndIsNamedToo) {
  Launch launch(shell({"--nproc-per-node", "2", "--grace", "0.2"},
                      "if [ $RANK = 1 ]; then echo 1 0 >&$SHARDGRAD_FAILURE_FD; exit 3; fi; "
                      "echo waits >&2; exec sleep 60"));
  EXPECT_EQ(launch.wait(), 1);
  EXPECT_NE(launch.err().find("made its peers fail and did not end before signal 15 (SIGTERM); its "
                              "last line: waits"),
            std::string::npos)
      << launch.err();
}

TEST(Blame, OneThatEndsWellIsNoCause) {
  Launch launch(shell({"--nproc-per-node", "2"},
                      "if [ $RANK = 1 ]; then printf '1 0\\nx\\n1\\n9 9\\n' "
                      ">&$SHARDGRAD_FAILURE_FD; exit 3; fi; sleep 0.2"));
  EXPECT_EQ(launch.wait(), 3);
  EXPECT_NE(launch.err().find("shardgrad run: rank 1 (pid "), std::string::npos) << launch.err();
}

TEST(Blame, ARankOfAnotherNodeIsSaid) {
  for (int attempt = 0; attempt < 5; ++attempt) {  // the port is a guess
    const std::string port = std::to_string(21'000 + (::getpid() * 7 + attempt * 31) % 8'000);
    Launch launch(shell({"--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", port},
                        "echo 0 1 >&$SHARDGRAD_FAILURE_FD; exit 3"),
                  {{"SHARDGRAD_TOKEN", "t"}});
    const int status = launch.wait();
    if (status == 2) continue;
    EXPECT_EQ(status, 3);
    EXPECT_NE(launch.err().find("exited with status 3 because rank 1 of another node failed"),
              std::string::npos)
        << launch.err();
    return;
  }
  FAIL() << "no free port";
}

// The launcher's exit status where its standard error is `err`.
int status_with(const std::string& err, const std::string& command) {
  const int raw = std::system(("{ timeout 20 " SG_BINARY_DIR "/shardgrad run " + command + " " +
                               err + "; echo $? >&3; } 3>status.txt; exit $(cat status.txt)")
                                  .c_str());
  return WIFEXITED(raw) ? WEXITSTATUS(raw) : -1;
}

TEST(StandardError, ThatCannotBeWrittenChangesNoStatus) {
  const TemporaryFolder folder;
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  for (const char* err : {"2>/dev/full", "2>&-"}) {
    SCOPED_TRACE(err);
    EXPECT_EQ(status_with(err, "sh -c 'exit 7'"), 7);
    EXPECT_EQ(status_with(err, "./nothing"), 127);
    EXPECT_EQ(status_with(err, "--nproc-per-node 0 true"), 2);
  }
  // A reader that is gone before the first line.
  const int raw = std::system(
      "{ { sleep 0.3; timeout 20 " SG_BINARY_DIR
      "/shardgrad run ./nothing 2>&1; echo $? >status.txt; } | true; }; exit $(cat status.txt)");
  EXPECT_EQ(WEXITSTATUS(raw), 127);
  std::filesystem::current_path(before);
}

TEST(StandardOutput, AProgramThatWritesToAnEndedOneEnds) {
  NEEDS_LINEAR();
  // As `| head -1` does it: SIGPIPE is masked in a write of Gloo's alone.
  Launch launch(training(2));
  ASSERT_TRUE(launch.says("step "));
  launch.close_out();
  EXPECT_EQ(launch.wait(), 128 + SIGPIPE) << launch.err();
}

#if SG_NCCL && SG_STAND_IN

TEST(ProcessGpus, MoreProcessesThanGpusAndGlooAreRefused) {
  NEEDS_LINEAR();
  const auto error_of = [](const Words& options) {
    Words words = options;
    for (const char* word : {SG_BINARY_DIR "/linear", "--device", "cuda"}) words.push_back(word);
    Launch launch(words, {{"SHARDGRAD_FAKE_CUDA", "1"}});
    EXPECT_EQ(launch.wait(), 2) << launch.err();
    return launch.err();
  };
  // The stand-in has four.
  EXPECT_NE(
      error_of({"--nproc-per-node", "5"})
          .find("linear: --device cuda: shardgrad run started 5 processes, 5 of them on this "
                "host, and process 0 sees 4 GPUs: each needs one of its own, cuda:LOCAL_RANK"),
      std::string::npos);
  EXPECT_NE(error_of({"--nproc-per-node", "2", "--backend", "gloo"})
                .find("linear: --device cuda: shardgrad run started 2 processes, and the backend "
                      "gloo carries main memory alone"),
            std::string::npos);
}

TEST(ProcessGpus, TheOneThatIsLeftToAProcessIsItsOwn) {
  NEEDS_LINEAR();
  // The stand-in connects no processes: each waits for the other then.
  Launch launch({"--nproc-per-node", "2", SG_BINARY_DIR "/linear", "--device", "cuda"},
                {{"SHARDGRAD_FAKE_CUDA", "1"},
                 {"SHARDGRAD_FAKE_CUDA_DEVICES", "1"},
                 {"CUDA_VISIBLE_DEVICES", "3"},
                 {"SHARDGRAD_DEADLINE", "0.5"}});
  EXPECT_EQ(launch.wait(), 1);
  EXPECT_NE(launch.err().find("waited 500 ms for the GPUs of its peers in connect"),
            std::string::npos)
      << launch.err();
}

TEST(ProcessGpus, AreTheDefaultWhereEachProcessHasOne) {
  NEEDS_LINEAR();
  const auto run = [](Words words, const Variables& variables) {
    Variables all = variables;
    all["SHARDGRAD_FAKE_CUDA"] = "1";
    Launch launch(words, all);
    return std::pair(launch.wait(), launch.err());
  };
  const Words two{"--nproc-per-node", "2", SG_BINARY_DIR "/linear"};
  const auto [status, text] = run(two, {{"SHARDGRAD_DEADLINE", "0.5"}});
  EXPECT_EQ(status, 1);
  EXPECT_NE(text.find("for the GPUs of its peers in connect"), std::string::npos) << text;
  // One GPU, which two processes cannot share.
  EXPECT_EQ(run(two, {{"SHARDGRAD_FAKE_CUDA_DEVICES", "1"}}).first, 0);
  Words cpu{"--backend", "nccl"};
  cpu.insert(cpu.end(), two.begin(), two.end());
  cpu.insert(cpu.end(), {"--device", "cpu"});
  EXPECT_NE(run(cpu, {}).second.find(
                "the backend nccl connects GPUs, and the ranks compute on cpu; give --device cuda"),
            std::string::npos);
}

#endif

}  // namespace
}  // namespace sg::cli
