// One start of all processes, from the first to the last end: who failed, and who is told to stop.
#pragma once

#include <chrono>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "dist/cli/blame.h"
#include "dist/cli/children.h"
#include "dist/cli/output.h"
#include "dist/cli/run_options.h"
#include "dist/cli/signals.h"

namespace sg::cli {

/// The first rank that failed.
struct Cause {
  int local_rank = 0;
  pid_t pid = -1;
  End end = {};
  int unheeded = 0;                    ///< it outlived this stop signal, and the launcher killed it
  std::optional<int> because_of = {};  ///< a rank of another node, by its own word
  bool by_peers = false;  ///< its peers failed because of it; it did not end until it was told to
  bool after_stop = false;  ///< a stop signal had been passed on
};

struct Outcome {
  std::optional<Cause> cause = {};
  int status = 0;
  bool stopped = false;  ///< somebody asked to stop: nothing is to be started again
};

/// "rank 2 (pid 4711) was killed by signal 9 (SIGKILL)" and the like.
std::string describe(const Cause& cause, const RunOptions& options, const std::string& last_line);

/// When a rank fails its peers have --grace seconds to end alone, which they usually do with an
/// error that says more; then they get SIGTERM, and --shutdown-timeout seconds later SIGKILL. A
/// stop signal goes on to all at once, with the same timeout; a second one is SIGKILL.
class Group {
 public:
  Group(const RunOptions& options, Children& children, Output& output, Signals& signals,
        Blame& blame)
      : options_(options), children_(children), output_(output), signals_(signals), blame_(blame) {}

  /// Serves output and signals until every process has ended.
  Outcome wait();

 private:
  using Clock = std::chrono::steady_clock;
  enum class Phase { running, grace, stopping, killed };

  void serve_once();
  void on_stop(int signal);
  void on_ends(const std::vector<int>& ended);
  void on_deadline();
  void kill();
  void enter(Phase phase, double seconds);
  bool failed(const Child& child) const;
  std::optional<Cause> first_cause();
  std::optional<Cause> cause_of(Cause failure);
  int poll_timeout() const;

  const RunOptions& options_;
  Children& children_;
  Output& output_;
  Signals& signals_;
  Blame& blame_;
  Phase phase_ = Phase::running;
  std::optional<Clock::time_point> deadline_ = {};  ///< of this phase
  std::vector<Cause> failures_ = {};                ///< as they were seen
  std::set<int> told_ = {};  ///< local ranks that ended after they were told to
  int stop_ = 0;             ///< the stop signal that was passed on
  bool forced_ = false;      ///< a second one killed all
  Clock::time_point stopped_at_ = {};
};

}  // namespace sg::cli
