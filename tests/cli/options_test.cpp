// The command line of `shardgrad`: what it means, and what it says of mistakes.
#include "dist/cli/run_options.h"

#include <gtest/gtest.h>

#include "dist/cli/environment.h"
#include "dist/cli/errors.h"

namespace sg::cli {
namespace {

using Words = std::vector<std::string>;

RunOptions parse(Words words) {
  words.insert(words.begin(), "run");
  return parse_command_line(words).run;
}

std::string error_of(const Words& words) {
  try {
    parse_command_line(words);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "no error";
}

std::string run_error(Words words) {
  words.insert(words.begin(), "run");
  return error_of(words);
}

void expect_in(const std::string& part, const std::string& text) {
  EXPECT_NE(text.find(part), std::string::npos) << "expected '" << part << "' in: " << text;
  EXPECT_EQ(text.find('\n'), std::string::npos) << "more than a line: " << text;
}

TEST(Options, Defaults) {
  const RunOptions o = parse({"./train"});
  EXPECT_EQ(o.processes, 1);
  EXPECT_EQ(o.nodes, 1);
  EXPECT_EQ(o.node_rank, 0);
  EXPECT_EQ(o.master_addr, "127.0.0.1");
  EXPECT_EQ(o.master_port, 0);
  EXPECT_EQ(o.max_restarts, 0);
  EXPECT_EQ(o.shutdown_timeout, 30);
  EXPECT_EQ(o.grace, 3);
  EXPECT_EQ(o.backend, "");
  EXPECT_EQ(o.command, Words{"./train"});
  EXPECT_TRUE(o.on_terminal(0));
}

TEST(Options, DashesAndUnderscoresAreAlike) {
  for (const Words& words :
       {Words{"--nproc-per-node", "3", "--max-restarts=2", "--shutdown-timeout", "0.5", "x"},
        Words{"--nproc_per_node", "3", "--max_restarts=2", "--shutdown_timeout", "0.5", "x"}}) {
    const RunOptions o = parse(words);
    EXPECT_EQ(o.processes, 3);
    EXPECT_EQ(o.max_restarts, 2);
    EXPECT_EQ(o.shutdown_timeout, 0.5);
  }
  EXPECT_EQ(parse({"--log_dir", "a_b", "x"}).log_dir, "a_b");  // a value keeps its underscores
}

TEST(Options, WhatFollowsTheProgramIsItsOwn) {
  const Words command{"./train", "--nproc-per-node", "7", "--help", "--", "--no_such", "[a,b]", ""};
  Words words{"--nproc-per-node", "2"};
  words.insert(words.end(), command.begin(), command.end());
  EXPECT_EQ(parse(words).command, command);
  EXPECT_EQ(parse(words).processes, 2);
  EXPECT_EQ(parse({"--tee", "--log-dir", "d", "--", "-odd", "a"}).command, (Words{"-odd", "a"}));
}

TEST(Options, AutoIsTheCores) {
  EXPECT_EQ(parse({"--nproc-per-node", "auto", "x"}).processes, available_cores());
}

TEST(Options, Nodes) {
  const RunOptions o = parse({"--nnodes", "3", "--node-rank", "2", "--nproc-per-node", "4",
                              "--master-addr", "node0", "x"});
  EXPECT_EQ(o.world_size(), 12);
  EXPECT_EQ(o.rank(1), 9);
  EXPECT_EQ(o.master_port, kDefaultPort);
  EXPECT_EQ(parse({"--standalone", "--nnodes", "1", "x"}).master_port, 0);
}

TEST(Options, TheFilterIsOfLocalRanks) {
  const RunOptions o = parse({"--nproc-per-node", "4", "--local-ranks-filter", "0,2", "x"});
  EXPECT_TRUE(o.on_terminal(0) && o.on_terminal(2));
  EXPECT_FALSE(o.on_terminal(1) || o.on_terminal(3));
}

TEST(Options, AnUnknownOptionNamesTheNearest) {
  expect_in("no option --nproc-per-nod; did you mean --nproc-per-node?",
            run_error({"--nproc_per_nod", "2", "x"}));
  expect_in("did you mean --tee?", run_error({"--te", "x"}));
  expect_in("did you mean run?", error_of({"rnu", "x"}));
}

TEST(Options, MistakesSayTheMend) {
  expect_in("shardgrad run [options] program", run_error({}));
  expect_in("shardgrad run [options] program", run_error({"--nproc-per-node", "2"}));
  expect_in("--nproc-per-node has no value", run_error({"--nproc-per-node"}));
  expect_in("--log-dir has no value", run_error({"--log-dir=", "x"}));
  expect_in("--nproc-per-node 0: use 1 to 1024", run_error({"--nproc-per-node", "0", "x"}));
  expect_in("--nproc-per-node -1: use 1 to 1024", run_error({"--nproc-per-node", "-1", "x"}));
  expect_in("--nproc-per-node gpu: use 1 to 1024 processes, or auto",
            run_error({"--nproc-per-node", "gpu", "x"}));
  expect_in("--nnodes", run_error({"--nnodes", "two", "x"}));
  expect_in("--nnodes 0: use 1", run_error({"--nnodes", "0", "x"}));
  expect_in("have ranks 0 to 1",
            run_error({"--nnodes", "2", "--node-rank", "2", "--master-addr", "a", "x"}));
  expect_in("add --master-addr", run_error({"--nnodes", "2", "x"}));
  expect_in("must agree on a port",
            run_error({"--nnodes", "2", "--master-addr", "a", "--master-port", "0", "x"}));
  expect_in("--standalone is one node", run_error({"--standalone", "--nnodes", "2", "x"}));
  expect_in("chooses --master-port by itself",
            run_error({"--standalone", "--master-port", "5", "x"}));
  expect_in("ports go from 1 to 65535", run_error({"--master-port", "65536", "x"}));
  expect_in("--max-restarts -1: use 0", run_error({"--max-restarts", "-1", "x"}));
  expect_in("add --log-dir", run_error({"--tee", "x"}));
  expect_in("--shutdown-timeout -1", run_error({"--shutdown-timeout", "-1", "x"}));
  expect_in("--grace nan", run_error({"--grace", "nan", "x"}));
  expect_in("local ranks from 0 to 1",
            run_error({"--nproc-per-node", "2", "--local-ranks-filter", "0,2", "x"}));
  expect_in("local ranks from 0 to 1",
            run_error({"--nproc-per-node", "2", "--local-ranks-filter", "0,,1", "x"}));
}

TEST(Options, Backends) {
  EXPECT_EQ(parse({"--backend", "gloo", "--nproc-per-node", "2", "x"}).backend, "gloo");
  EXPECT_EQ(parse({"--backend", "threads", "x"}).backend, "threads");
  if (SG_NCCL)
    EXPECT_EQ(parse({"--backend", "nccl", "x"}).backend, "nccl");
  else
    expect_in("this build has no NCCL", run_error({"--backend", "nccl", "x"}));
  expect_in("did you mean gloo?", run_error({"--backend", "glo", "x"}));
  expect_in("--ranks 2", run_error({"--backend", "threads", "--nproc-per-node", "2", "x"}));
}

TEST(Options, HelpAndVersionAreText) {
  const std::string help = parse_command_line(Words{"run", "--help"}).text;
  for (const char* option :
       {"--nproc-per-node", "--nnodes", "--node-rank", "--master-addr", "--master-port",
        "--standalone", "--max-restarts", "--log-dir", "--tee", "--local-ranks-filter",
        "--shutdown-timeout", "--grace", "--backend", "shardgrad run"})
    EXPECT_NE(help.find(option), std::string::npos) << option;
  EXPECT_NE(parse_command_line(Words{"--help"}).text.find("run"), std::string::npos);
  EXPECT_TRUE(parse_command_line(Words{"--version"}).text.starts_with("shardgrad "));
  EXPECT_NE(error_of({}), "no error");
}

}  // namespace
}  // namespace sg::cli
