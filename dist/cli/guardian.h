// What remains when the launcher is killed with SIGKILL: a small process that then kills the
// processes' groups, grandchildren included. (A child itself dies by PR_SET_PDEATHSIG.)
#pragma once

#include <sys/types.h>

#include "dist/cli/fd.h"

namespace sg::cli {

class Guardian {
 public:
  /// Forks. Made before everything else that is opened, so that it holds nothing open.
  Guardian();
  ~Guardian();
  Guardian(const Guardian&) = delete;
  Guardian& operator=(const Guardian&) = delete;

  /// The group is killed when this process dies, until it is forgotten.
  void watch(pid_t group) { tell(group); }
  void forget(pid_t group) { tell(-group); }
  pid_t pid() const { return pid_; }

 private:
  void tell(pid_t group);

  Fd pipe_;
  pid_t pid_ = -1;
};

}  // namespace sg::cli
