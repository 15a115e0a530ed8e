// What a launcher tells a process in its environment: which rank it is, of how many, and where rank
// 0 keeps the store. Read by name from torchrun's variables (RANK, WORLD_SIZE, LOCAL_RANK,
// MASTER_ADDR, ...; `shardgrad run` sets the same), Slurm's and Open MPI's.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace sg::dist {

struct ProcessEnvironment {
  std::string launcher;  ///< "torchrun", "srun", ...: for messages
  int rank = 0;
  int world_size = 1;
  int local_rank = 0;
  int local_world_size = 1;           ///< processes of the job on this host
  bool gpus_chosen = false;           ///< CUDA_VISIBLE_DEVICES is set
  std::string address = "127.0.0.1";  ///< of the store
  int port = 0;                       ///< of the store
  std::string job;                    ///< an id of the job, if the launcher has one
  int attempt = 0;                    ///< how often its launcher has started it again
  std::string token;                  ///< SHARDGRAD_TOKEN; empty: by a file of rank 0's
  int listening_socket = -1;          ///< rank 0's, handed in by `shardgrad run`
  int failure_fd = -1;                ///< where `shardgrad run` wants to hear whose failure it is
  std::string own_address;            ///< SHARDGRAD_ADDRESS: of this process, for its peers
  bool several_hosts() const { return local_world_size < world_size; }
};

/// A variable's value, null if it is not set: std::getenv, or a test's own.
using GetVariable = std::function<const char*(const char*)>;

/// Nothing if no launcher started this process (or SHARDGRAD_BACKEND is `threads`). Errors: a
/// variable that is missing beside the others, no number or out of range; several hosts without
/// SHARDGRAD_TOKEN; no port, and no id of the job to derive one from; a backend that this build
/// does not have.
std::optional<ProcessEnvironment> process_environment();
std::optional<ProcessEnvironment> process_environment(const GetVariable& variable);

/// The address by which the others are to reach this process: SHARDGRAD_ADDRESS, else `way`, its
/// own on the way to the store. Error: other hosts cannot reach that one.
std::string address_for_peers(const ProcessEnvironment& environment, const std::string& way);

/// The first host of Slurm's compressed list: "node[07-12,20],login1" is node07.
std::string first_host(const std::string& list);

}  // namespace sg::dist
