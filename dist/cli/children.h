// The processes of one start: each in a process group of its own, none of which outlives this.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "dist/cli/fd.h"
#include "dist/cli/guardian.h"

namespace sg::cli {

/// How a process ended.
struct End {
  bool signalled = false;
  int code = 0;  ///< the signal, or the exit status

  bool operator==(const End&) const = default;
  int status() const;  ///< as shells say it: 128 + the signal, or the exit status
};

/// "SIGKILL"; "SIG34" for one without a name here.
std::string signal_name(int signal);

/// From SIGKILL to a process's end. One in the kernel's hands (a device's wait) may take longer.
inline constexpr std::chrono::seconds kDying{5};

struct Child {
  pid_t pid = -1;
  std::optional<End> end = {};
  bool killed = false;  ///< kill_all() was called while it ran
  bool given_up = false;
};

/// The reading ends of what a process says.
struct Streams {
  Fd out, err;
};

class Children {
 public:
  explicit Children(Guardian& guardian);
  /// Kills what is left.
  ~Children();
  Children(const Children&) = delete;
  Children& operator=(const Children&) = delete;

  struct Program {
    const std::vector<std::string>& command;  ///< found through PATH unless it has a slash
    const std::vector<std::string>& environment;
    std::vector<int> inherited = {};  ///< descriptors that it gets under the same numbers
    bool input = false;               ///< gets our standard input; else /dev/null
  };
  /// Starts one more. Throws StartError if the program cannot be executed.
  Streams start(const Program& program);

  const std::vector<Child>& all() const { return children_; }
  bool all_ended() const;
  /// The children that ended since the last call. They are not reaped yet, so their groups' numbers
  /// are not given to others.
  std::vector<int> newly_ended();
  /// To the groups of those that run. A stopped process is continued, that it may act on it.
  void signal_all(int signal);
  void kill_all();
  /// Those that SIGKILL has not ended: they count as ended by it, and sweep() names them.
  std::vector<int> give_up();
  /// Kills and reaps every child and every process that descends from one, in whatever group.
  /// Returns those that did not end within kDying of SIGKILL, which are given up.
  std::vector<pid_t> sweep();

 private:
  std::set<pid_t> strangers() const;

  Guardian& guardian_;
  std::set<pid_t> before_;  ///< children this process had already: not ours to kill
  std::vector<Child> children_;
};

}  // namespace sg::cli
