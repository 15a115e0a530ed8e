// Where the processes' output goes.
#include <regex>

#include "dist/cli/output.h"
#include "tests/cli/support.h"

namespace sg::cli {
namespace {

TEST(Output, LinesAreWholeWithFourChattyProcesses) {
  // Each line in two writes, and on both streams.
  Launch launch(
      shell({"--nproc-per-node", "4"},
            "i=0; while [ $i -lt 400 ]; do printf 'line %d ' $i; printf 'of %d\\n' $RANK; "
            "echo error $i of $RANK >&2; i=$((i + 1)); done"));
  ASSERT_EQ(launch.wait(), 0) << launch.err();
  for (const auto& [text, pattern] :
       {std::pair(launch.out(), std::regex(R"(\[rank(\d)\] line (\d+) of (\d))")),
        std::pair(launch.err(), std::regex(R"(\[rank(\d)\] error (\d+) of (\d))"))}) {
    int next[4] = {0, 0, 0, 0};
    for (const std::string& line : lines_of(text)) {
      std::smatch match;
      ASSERT_TRUE(std::regex_match(line, match, pattern)) << line;
      EXPECT_EQ(match[1], match[3]);
      EXPECT_EQ(std::stoi(match[2]), next[std::stoi(match[1])]++) << "out of order: " << line;
    }
    for (const int count : next) EXPECT_EQ(count, 400);
  }
}

TEST(Output, AnUnfinishedLineIsWritten) {
  Launch launch(shell({}, "printf 'no newline'; printf 'nor here' >&2"));
  EXPECT_EQ(launch.wait(), 0);
  EXPECT_EQ(launch.out(), "[rank0] no newline\n");
  EXPECT_EQ(launch.err(), "[rank0] nor here\n");
}

TEST(Output, MuchOfItArrives) {
  Launch launch(shell({"--nproc-per-node", "2"}, "head -c 3000000 /dev/zero | tr '\\0' x; echo"));
  ASSERT_EQ(launch.wait(), 0) << launch.err();
  std::size_t characters = 0;
  for (const std::string& line : lines_of(launch.out())) {
    ASSERT_TRUE(line.starts_with("[rank0] x") || line.starts_with("[rank1] x"));
    characters += line.size() - 8;
  }
  EXPECT_EQ(characters, 6'000'000u);
}

TEST(Output, LogsHoldItAndTheTerminalDoesNot) {
  const TemporaryFolder folder;
  const std::string logs = folder / "deep/logs";
  const std::string script = "echo out $RANK; echo err $RANK >&2; printf rest";
  Launch launch(shell({"--nproc-per-node", "2", "--log-dir", logs}, script));
  EXPECT_EQ(launch.wait(), 0) << launch.err();
  EXPECT_EQ(launch.out(), "");
  EXPECT_EQ(launch.err(), "");
  EXPECT_EQ(read_file(logs + "/rank1.out"), "out 1\nrest");  // byte by byte
  EXPECT_EQ(read_file(logs + "/rank1.err"), "err 1\n");
  EXPECT_EQ(read_file(logs + "/rank0.out"), "out 0\nrest");
}

TEST(Output, TeeAndFilter) {
  const TemporaryFolder folder;
  Launch launch(shell({"--nproc-per-node", "3", "--log-dir", folder.path().string(), "--tee",
                       "--local-ranks-filter", "2"},
                      "echo out $RANK; echo $SHARDGRAD_LOG_DIR"));
  EXPECT_EQ(launch.wait(), 0) << launch.err();
  EXPECT_EQ(launch.out(), "[rank2] out 2\n[rank2] " + folder.path().string() + "\n");
  EXPECT_TRUE(read_file(folder / "rank0.out").starts_with("out 0\n"));
}

TEST(Output, ALogFolderThatCannotBe) {
  Launch launch(shell({"--log-dir", "/dev/null/logs"}, "echo started"));
  EXPECT_EQ(launch.wait(), 2);
  EXPECT_NE(launch.err().find("--log-dir /dev/null/logs: cannot be made"), std::string::npos)
      << launch.err();
  EXPECT_EQ(launch.out(), "");
}

TEST(Output, WithoutAReaderTheProcessesGetSigpipe) {
  Launch launch(shell({}, "while :; do echo y; done"));
  ASSERT_TRUE(launch.says("y"));
  launch.close_out();
  EXPECT_EQ(launch.wait(), 128 + SIGPIPE) << launch.err();
}

TEST(Output, AStuckReaderDoesNotStopSignals) {
  Launch launch(
      shell({}, "echo ready; while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done"));
  ASSERT_TRUE(launch.says("ready"));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // nobody reads: all is full
  launch.signal(SIGTERM);
  EXPECT_EQ(launch.wait(), 128 + SIGTERM) << launch.err();
}

TEST(Output, AStuckTerminalIsGivenUp) {
  // In a process of its own: standard output becomes a pipe that nobody reads.
  const pid_t pid = ::fork();
  if (pid == 0) {
    Pipe full = make_pipe(), never = make_pipe();
    ::fcntl(full.write.get(), F_SETFL, O_NONBLOCK);
    while (::write(full.write.get(), "x", 1) == 1) continue;
    ::dup2(full.write.get(), 2);
    ::fcntl(2, F_SETFL, 0);
    Output output(RunOptions{});
    output.say("the cause");
    output.finish(never.read.get(), std::chrono::milliseconds(200));
    ::_exit(5);
  }
  int raw = 0;
  ASSERT_TRUE(eventually([&] { return ::waitpid(pid, &raw, WNOHANG) == pid; }));
  EXPECT_TRUE(WIFEXITED(raw) && WEXITSTATUS(raw) == 5);
}

}  // namespace
}  // namespace sg::cli
