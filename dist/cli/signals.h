// Signals as things to poll for.
#pragma once

#include <optional>

#include "dist/cli/fd.h"

namespace sg::cli {

/// From its making on, SIGINT, SIGTERM, SIGHUP (unless ignored, as nohup has it) and SIGCHLD are
/// blocked and wait in descriptors, and SIGPIPE is ignored. For the life of the program.
class Signals {
 public:
  Signals();

  int stop_fd() const { return stop_.get(); }
  int child_fd() const { return child_.get(); }
  /// The next signal that asks to stop; none if there is none. Does not wait.
  std::optional<int> take_stop() { return take(stop_); }
  void take_child() {
    while (take(child_)) continue;
  }

 private:
  static std::optional<int> take(const Fd& fd);

  Fd stop_, child_;
};

}  // namespace sg::cli
