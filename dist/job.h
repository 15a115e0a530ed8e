// A program's ranks, however it was started: as threads of this process or, where a launcher
// started it (shardgrad run, torchrun, srun, mpirun), as one rank of a group of processes.
//
//   dist::Job job(options.ranks, {.seed = 1});
//   job.run([&](Rank& rank) { ... });
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "dist/environment.h"
#include "dist/launch.h"

namespace sg::dist {

class ProcessGroup;

/// Compute threads of a process by default: OMP_NUM_THREADS, or its share of the host's cores.
int default_threads(const ProcessEnvironment& environment);

class Job {
 public:
  /// `ranks` threads, or the launcher's processes: those decide then. All processes must come with
  /// the same `configuration` (the command line, say), of which a hash is compared. Under a
  /// launcher this is collective: it returns when all have come. Errors: process_environment()'s; a
  /// rank that does not come within options.deadline; one of another job or configuration. On GPUs
  /// a process takes cuda:LOCAL_RANK; an error if it cannot.
  Job(int ranks, const LaunchOptions& options, const std::string& configuration = {});
  /// Waits for the other processes to end as well, after a run that did not fail.
  ~Job();
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  int ranks() const { return ranks_; }
  /// The first rank of this process: 0 where ranks are threads.
  int first_rank() const;
  /// One process prints and writes files for all.
  bool speaks() const { return first_rank() == 0; }
  /// "torchrun", say; empty where ranks are threads of this process.
  std::string launcher() const;
  /// What `options` left open.
  int threads() const;
  Executor executor() const;
  Backend backend() const { return options_.backend; }
  /// Runs fn on every rank of this process, and on the others' in theirs; may be called again.
  /// Errors: as of launch_ranks(); Stopped, see dist/stop_signals.h.
  void run(const std::function<void(Rank&)>& fn);

 private:
  int ranks_;
  LaunchOptions options_;
  std::unique_ptr<ProcessGroup> group_;  // null where ranks are threads
};

}  // namespace sg::dist
