// What the variables of launchers mean.
#include "dist/environment.h"

#include <map>
#include <set>

#include "dist/comm/nccl.h"
#include "tests/dist/support.h"

namespace sg::dist {
namespace {

using Variables = std::map<std::string, std::string>;

std::optional<ProcessEnvironment> read(const Variables& variables) {
  return process_environment([&](const char* name) -> const char* {
    const auto it = variables.find(name);
    return it == variables.end() ? nullptr : it->second.c_str();
  });
}

const Variables kRun = {{"RANK", "2"},
                        {"WORLD_SIZE", "4"},
                        {"LOCAL_RANK", "2"},
                        {"LOCAL_WORLD_SIZE", "4"},
                        {"MASTER_ADDR", "127.0.0.1"},
                        {"MASTER_PORT", "29500"}};

Variables with(Variables variables, const Variables& more) {
  for (const auto& [name, value] : more) variables[name] = value;
  return variables;
}

TEST(Environment, WithoutALauncherThereIsNone) {
  EXPECT_FALSE(read({}));
  EXPECT_FALSE(read({{"MASTER_PORT", "1"}, {"OMP_NUM_THREADS", "2"}, {"SLURM_JOB_ID", "7"}}));
  // A batch script of Slurm's runs once, outside of any step.
  EXPECT_FALSE(read({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}}));
}

TEST(Environment, OwnLauncherAndTorchrun) {
  const auto own = read(with(kRun, {{"SHARDGRAD_RUN", "1"}, {"SHARDGRAD_TOKEN", "t"}}));
  ASSERT_TRUE(own);
  EXPECT_EQ(own->launcher, "shardgrad run");
  EXPECT_EQ(own->rank, 2);
  EXPECT_EQ(own->world_size, 4);
  EXPECT_EQ(own->port, 29500);
  EXPECT_EQ(own->token, "t");
  EXPECT_FALSE(own->gpus_chosen);
  EXPECT_TRUE(read(with(kRun, {{"CUDA_VISIBLE_DEVICES", "3"}}))->gpus_chosen);
  EXPECT_FALSE(own->several_hosts());
  const auto torch = read(with(kRun, {{"TORCHELASTIC_RUN_ID", "none"}}));
  EXPECT_EQ(torch->launcher, "torchrun");
  EXPECT_EQ(torch->port, 29501) << "its agent holds MASTER_PORT";
  EXPECT_EQ(read(with(kRun, {{"SHARDGRAD_PORT", "4000"}}))->port, 4000);
  EXPECT_EQ(read(kRun)->port, 29500);
}

TEST(Environment, TheAttemptIsTheLaunchersCountOfRestarts) {
  EXPECT_EQ(read(kRun)->attempt, 0);
  const Variables both = {{"SHARDGRAD_RESTART_COUNT", "2"}, {"TORCHELASTIC_RESTART_COUNT", "1"}};
  Variables own = both, torch = both;
  own["SHARDGRAD_RUN"] = "1";
  torch["TORCHELASTIC_RUN_ID"] = "none";
  EXPECT_EQ(read(with(kRun, own))->attempt, 2);
  EXPECT_EQ(read(with(kRun, torch))->attempt, 1);
}

TEST(Environment, TheListeningSocketIsRankZeros) {
  const Variables socket = {{"SHARDGRAD_STORE_FD", "5"}};
  EXPECT_EQ(read(with(kRun, socket))->listening_socket, -1);
  EXPECT_EQ(read(with(with(kRun, socket), {{"RANK", "0"}}))->listening_socket, 5);
}

TEST(Environment, Mpirun) {
  const Variables mpi = {{"OMPI_COMM_WORLD_RANK", "1"},
                         {"OMPI_COMM_WORLD_SIZE", "3"},
                         {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                         {"OMPI_COMM_WORLD_LOCAL_SIZE", "3"},
                         {"PMIX_NAMESPACE", "job7"}};
  const auto e = read(mpi);
  EXPECT_EQ(e->launcher, "mpirun");
  EXPECT_EQ(e->rank, 1);
  EXPECT_EQ(e->world_size, 3);
  EXPECT_EQ(e->address, "127.0.0.1");
  EXPECT_EQ(e->port, read(with(mpi, {{"OMPI_COMM_WORLD_RANK", "2"}}))->port) << "of the job's id";
  EXPECT_GE(e->port, 20'000);
  EXPECT_LT(e->port, 30'000);
}

TEST(Environment, WithoutIdAndPortAJobIsRefused) {
  const Variables mpi = {{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "3"}};
  EXPECT_HAS(
      error_of([&] { read(mpi); }),
      "[launch] mpirun gives the job neither an id nor a port, so that two jobs of this host "
      "could not be told apart; set MASTER_PORT");
  EXPECT_EQ(read(with(mpi, {{"SHARDGRAD_PORT", "4000"}}))->port, 4000);
  EXPECT_TRUE(read({{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "1"}}));
}

TEST(Environment, TheAddressForPeersIsNoLoopbackOnSeveralHosts) {
  const Variables two = with(kRun, {{"LOCAL_WORLD_SIZE", "2"}, {"SHARDGRAD_TOKEN", "t"}});
  const auto at = [&](const Variables& more, const std::string& way) {
    return address_for_peers(*read(with(two, more)), way);
  };
  EXPECT_EQ(at({{"MASTER_ADDR", "node0"}}, "10.0.0.7"), "10.0.0.7");
  for (const char* way : {"127.0.0.1", "127.0.1.1", "::1"})
    EXPECT_HAS(error_of([&] {
                 at({{"MASTER_ADDR", "node0"}}, way);
               }),
               fmt::format("[launch] rank 2: the job spans several hosts, and on this one 'node0' "
                           "means {}, which others cannot reach",
                           way));
  EXPECT_EQ(at({{"MASTER_ADDR", "node0"}, {"SHARDGRAD_ADDRESS", "10.0.0.9"}}, "127.0.1.1"),
            "10.0.0.9");
  EXPECT_EQ(at({}, "127.0.0.1"), "127.0.0.1") << "several nodes tried out on one machine";
  EXPECT_EQ(address_for_peers(*read(kRun), "127.0.0.1"), "127.0.0.1");
}

TEST(Environment, Srun) {
  const Variables slurm = {{"SLURM_PROCID", "5"},
                           {"SLURM_STEP_NUM_TASKS", "8"},
                           {"SLURM_LOCALID", "1"},
                           {"SLURM_STEP_NUM_NODES", "2"},
                           {"SLURM_JOB_ID", "77"},
                           {"SLURM_STEP_ID", "0"},
                           {"SLURM_STEP_NODELIST", "gpu[07-12,20],login1"},
                           {"SHARDGRAD_TOKEN", "t"}};
  const auto e = read(slurm);
  EXPECT_EQ(e->launcher, "srun");
  EXPECT_EQ(e->rank, 5);
  EXPECT_EQ(e->world_size, 8);
  EXPECT_EQ(e->local_world_size, 4);
  EXPECT_EQ(e->address, "gpu07");
  EXPECT_TRUE(e->several_hosts());
  EXPECT_EQ(first_host("a,b"), "a");
  EXPECT_EQ(first_host("a"), "a");
  EXPECT_EQ(first_host("n[3,5]"), "n3");
  EXPECT_EQ(first_host("n[3]"), "n3");
}

TEST(Environment, UnderSrunThePortIsOfTheJobsStep) {
  const auto port_of = [](const Variables& more) {
    return read(with({{"SLURM_PROCID", "0"},
                      {"SLURM_STEP_NUM_TASKS", "4"},
                      {"SLURM_LOCALID", "0"},
                      {"SLURM_JOB_ID", "77"},
                      {"SLURM_STEP_ID", "0"}},
                     more))
        ->port;
  };
  const int port = port_of({});
  for (const char* rank : {"1", "2", "3"})
    EXPECT_EQ(port_of({{"SLURM_PROCID", rank}, {"SLURM_LOCALID", rank}}), port) << rank;
  // Below what the system hands out, and no two of some jobs and steps that may meet.
  std::set<int> ports;
  for (const char* job : {"77", "78", "770", "1000000"})
    for (const char* step : {"0", "1", "2"}) {
      const int p = port_of({{"SLURM_JOB_ID", job}, {"SLURM_STEP_ID", step}});
      EXPECT_GE(p, 20'000);
      EXPECT_LT(p, 30'000);
      EXPECT_TRUE(ports.insert(p).second) << job << "." << step << " has the port of another";
    }
  EXPECT_TRUE(ports.contains(port));
  EXPECT_EQ(port_of({{"MASTER_PORT", "29500"}}), 29500);
  EXPECT_EQ(port_of({{"MASTER_PORT", "29500"}, {"SHARDGRAD_PORT", "4000"}}), 4000);
}

TEST(Environment, ErrorsNameTheVariable) {
  const auto error = [](const Variables& v) { return error_of([&] { read(v); }); };
  EXPECT_HAS(error({{"RANK", "0"}}), "[launch] WORLD_SIZE is not set, though other variables");
  EXPECT_HAS(error(with(kRun, {{"RANK", "4"}})),
             "[launch] RANK is '4'; it must be a whole number from 0 to 3");
  EXPECT_HAS(error(with(kRun, {{"RANK", "two"}})), "RANK is 'two'");
  EXPECT_HAS(error(with(kRun, {{"WORLD_SIZE", "0"}})), "WORLD_SIZE is '0'");
  EXPECT_HAS(error(with(kRun, {{"MASTER_PORT", "65536"}})), "MASTER_PORT is '65536'");
  EXPECT_HAS(
      error(with(kRun, {{"LOCAL_WORLD_SIZE", "2"}})),
      "2 of 4 processes are on this host, so the job spans several, and SHARDGRAD_TOKEN is not "
      "set; set it to the same secret on all of them");
  EXPECT_EQ(error(with(kRun, {{"SHARDGRAD_BACKEND", "nccl"}})),
            has_nccl() ? "no error"
                       : "[launch] SHARDGRAD_BACKEND is 'nccl'; this build has auto, gloo and "
                         "threads");
  EXPECT_EQ(error(with(kRun, {{"SHARDGRAD_BACKEND", "mpi"}})),
            fmt::format("[launch] SHARDGRAD_BACKEND is 'mpi'; this build has auto, gloo{} threads",
                        has_nccl() ? ", nccl and" : " and"));
  EXPECT_HAS(error(with(kRun, {{"SHARDGRAD_BACKEND", "threads"}})), "start one, with --ranks 4");
}

TEST(Environment, TheThreadsBackendIgnoresALauncherOfOneProcess) {
  EXPECT_FALSE(read({{"RANK", "0"}, {"WORLD_SIZE", "1"}, {"SHARDGRAD_BACKEND", "threads"}}));
}

}  // namespace
}  // namespace sg::dist
