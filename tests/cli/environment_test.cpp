// What a process finds in its environment.
#include "dist/cli/environment.h"

#include <map>

#include "dist/cli/errors.h"
#include "tests/cli/support.h"

namespace sg::cli {
namespace {

std::map<std::string, std::string> as_map(const Words& environment) {
  std::map<std::string, std::string> map;
  for (const std::string& entry : environment) {
    const std::size_t equals = entry.find('=');
    EXPECT_TRUE(map.emplace(entry.substr(0, equals), entry.substr(equals + 1)).second)
        << "twice: " << entry;
  }
  return map;
}

TEST(Environment, OfAProcess) {
  RunOptions options;
  options.processes = 4;
  options.nodes = 2;
  options.node_rank = 1;
  options.master_addr = "node0";
  options.log_dir = "logs";
  const Job job{
      .mark = "of this launch", .port = 4242, .token = "secret", .restart_count = 3, .cores = 9};
  const Words inherited{"PATH=/bin", "RANK=99",           "CUDA_VISIBLE_DEVICES=3,1",
                        "RANKS=x",   "SHARDGRAD_PORT=17", "SHARDGRAD_STORE_FD=9"};
  auto map = as_map(child_environment(inherited, options, job, 2, std::nullopt));
  const std::map<std::string, std::string> expected{
      {"PATH", "/bin"},
      {"CUDA_VISIBLE_DEVICES", "3,1"},
      {"RANKS", "x"},
      {"RANK", "6"},
      {"WORLD_SIZE", "8"},
      {"LOCAL_RANK", "2"},
      {"LOCAL_WORLD_SIZE", "4"},
      {"MASTER_ADDR", "node0"},
      {"MASTER_PORT", "4242"},
      {"OMP_NUM_THREADS", "2"},
      {"SHARDGRAD_RUN", "of this launch"},
      {"SHARDGRAD_TOKEN", "secret"},
      {"SHARDGRAD_RESTART_COUNT", "3"},
      {"SHARDGRAD_BACKEND", "auto"},
      {"SHARDGRAD_LOG_DIR", (std::filesystem::current_path() / "logs").string()}};
  EXPECT_EQ(map, expected);
}

TEST(Environment, ThreadsAreAtLeastOneAndKeptIfSet) {
  RunOptions options;
  options.processes = 4;
  const Job job{.mark = "m", .port = 1, .token = "t", .restart_count = 0, .cores = 2};
  EXPECT_EQ(as_map(child_environment({}, options, job, 0, 7))["OMP_NUM_THREADS"], "1");
  EXPECT_EQ(as_map(child_environment({}, options, job, 0, 7))["SHARDGRAD_STORE_FD"], "7");
  const Words set{"OMP_NUM_THREADS=5", "SHARDGRAD_BACKEND=gloo"};
  auto map = as_map(child_environment(set, options, job, 0, std::nullopt));
  EXPECT_EQ(map["OMP_NUM_THREADS"], "5");
  EXPECT_EQ(map["SHARDGRAD_BACKEND"], "gloo");
  options.backend = "auto";  // named on the command line: it wins
  EXPECT_EQ(as_map(child_environment(set, options, job, 0, 1))["SHARDGRAD_BACKEND"], "auto");
}

TEST(Environment, TokensAreFreshUnlessGiven) {
  RunOptions options;
  const std::string token = job_token(options, {});
  EXPECT_EQ(token.size(), 64u);
  EXPECT_EQ(token.find_first_not_of("0123456789abcdef"), std::string::npos) << token;
  EXPECT_NE(token, job_token(options, {}));
  const Words given{"SHARDGRAD_TOKEN=mine"}, empty{"SHARDGRAD_TOKEN="};
  EXPECT_EQ(job_token(options, given), "mine");
  EXPECT_EQ(job_token(options, empty).size(), 64u);
  options.nodes = 2;
  EXPECT_EQ(job_token(options, given), "mine");
  EXPECT_THROW(job_token(options, empty), UsageError);
}

TEST(Environment, ReachesTheProgram) {
  Launch launch(shell({"--nproc-per-node", "2"},
                      "echo $RANK $WORLD_SIZE $LOCAL_RANK $LOCAL_WORLD_SIZE $MASTER_ADDR "
                      "$OMP_NUM_THREADS $CUDA_VISIBLE_DEVICES ${SHARDGRAD_RUN:+1}; "
                      "echo ${#SHARDGRAD_TOKEN}"),
                {{"OMP_NUM_THREADS", "3"}, {"CUDA_VISIBLE_DEVICES", "1"}});
  EXPECT_EQ(launch.wait(), 0) << launch.err();
  const Words lines = lines_of(launch.out());
  const std::multiset<std::string> found(lines.begin(), lines.end());
  const std::multiset<std::string> expected{"[rank0] 0 2 0 2 127.0.0.1 3 1 1",
                                            "[rank1] 1 2 1 2 127.0.0.1 3 1 1", "[rank0] 64",
                                            "[rank1] 64"};
  EXPECT_EQ(found, expected);
}

TEST(Environment, SeveralNodesNeedAToken) {
  const Words words = shell({"--nnodes", "2", "--node-rank", "1", "--master-addr", "127.0.0.1"},
                            "echo $RANK $MASTER_PORT");
  Launch without(words);
  EXPECT_EQ(without.wait(), 2);
  EXPECT_NE(without.err().find("set SHARDGRAD_TOKEN to the same secret"), std::string::npos)
      << without.err();
  Launch with(words, {{"SHARDGRAD_TOKEN", "s"}});
  EXPECT_EQ(with.wait(), 0);
  EXPECT_EQ(with.out(), "[rank1] 1 29500\n");
}

}  // namespace
}  // namespace sg::cli
