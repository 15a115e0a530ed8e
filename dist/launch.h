// Ranks as threads of this process.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>

#include "core/rank.h"
#include "core/thread_rank.h"
#include "dist/backend.h"
#include "dist/comm/comm.h"

namespace sg::dist {

/// SHARDGRAD_DEADLINE, in seconds, or else ten minutes. Errors: it is no number from 0 to 10^6.
std::chrono::milliseconds default_deadline();

/// SHARDGRAD_DETERMINISTIC: whether it is set, and not 0.
bool deterministic_by_environment();

struct LaunchOptions {
  int threads = 0;  ///< compute threads a rank; 0: cores / ranks, at least 1
  std::uint64_t seed = 0;
  /// A wait in a collective longer than this is an error that names whom it waited for; 0: none,
  /// for a debugger.
  std::chrono::milliseconds deadline = default_deadline();
  /// Unset: a comm thread a rank where each has a core to spare, else inline.
  std::optional<Executor> executor = {};
  /// Where each rank computes; the calling rank's own unless given. On a GPU all ranks of a process
  /// share that one, unless `backend` is nccl: then rank i has cuda:i, and the number is ignored.
  Device device = thread_rank() != nullptr ? thread_rank()->device : kCpu;
  Backend backend = backend_by_environment();
  /// With NCCL: sums in rank order, which gives the bits of ranks that share memory, for more time
  /// and scratch (N - 1 shards of the largest unit). Without NCCL sums always are.
  bool deterministic = deterministic_by_environment();
  /// When ranks fail, what each has done last goes where dump_history() says, before the error is
  /// thrown.
  bool dump_collectives = true;
};

/// Runs fn on `ranks` threads, each with a Rank and a Comm of its own, and waits for all. If some
/// throw, the others stop at their next wait, and the first cause is thrown here as "[rank 2] ...".
void launch_ranks(int ranks, const std::function<void(Rank&)>& fn,
                  const LaunchOptions& options = {});

/// Compute threads a rank gets by default, of `ranks` on this machine.
int default_threads(int ranks);
/// Cores that this process may run on, whatever OMP_NUM_THREADS says.
int cores_of_affinity();
/// A comm thread a rank where each has a core to spare, else inline: one that shares its rank's
/// core costs more than it hides (bench/README.md, "Executors").
Executor default_executor(int ranks, int threads, int cores = cores_of_affinity());
/// Busy waiting before a thread sleeps: none unless every thread has a core, as it would steal that
/// of the thread that is waited for.
std::chrono::microseconds default_spin(int ranks, int threads, Executor executor,
                                       int cores = cores_of_affinity());

/// What a failed rank was doing: the last Comm::kHistory collectives of `comm` into a file of the
/// folder SHARDGRAD_LOG_DIR (collectives.rank2.txt), which is named on standard error; without that
/// folder the last five there. Nothing if there were none.
void dump_history(const Comm& comm);

}  // namespace sg::dist
