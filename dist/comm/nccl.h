// NCCL between the GPUs of a group, one rank a GPU, ranks being processes or threads.
#pragma once

#include <chrono>
#include <string>

#include "dist/comm/comm.h"

namespace sg::dist {

struct NcclOptions {
  std::string id;  ///< nccl_id() of one rank, the same for all
  Device device;   ///< this rank's alone
  /// Sums are made in rank order by one kernel, from what all peers send: the bits of ranks that
  /// share memory. Else NCCL sums, faster and in an order of its own.
  bool deterministic = false;
  std::chrono::milliseconds deadline;  ///< of each collective; 0: none
  /// Ranks are threads: NCCL then reads and writes the peers' memory itself.
  bool one_process = false;
  /// How often the end of a rank's program says whose it waits for, on standard error.
  std::chrono::milliseconds reminder{10'000};
};

/// Whether this build can connect GPUs (SHARDGRAD_NCCL).
bool has_nccl();
/// A new group's name. Errors: NCCL cannot be loaded.
std::string nccl_id();
/// Connects the GPUs of all ranks of `comm`, which is collective, on the rank's own thread. Errors:
/// NCCL cannot be loaded; a rank that does not come within the deadline; two ranks on one GPU.
void use_nccl(Comm& comm, const NcclOptions& options);

}  // namespace sg::dist
