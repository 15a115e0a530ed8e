// What remains when the launcher is killed with SIGKILL: a small process that then kills the
// processes' groups, and their descendants in groups and sessions of their own, which it knows by
// a mark in the environment. (A child itself dies by PR_SET_PDEATHSIG.)
#pragma once

#include <sys/types.h>

#include <string>

#include "dist/cli/fd.h"

namespace sg::cli {

class Guardian {
 public:
  /// Forks, and waits until the guardian is on guard. Made before everything else that is opened,
  /// so that it holds nothing open.
  Guardian();
  ~Guardian();
  Guardian(const Guardian&) = delete;
  Guardian& operator=(const Guardian&) = delete;

  /// The group is killed when this process dies, until it is forgotten.
  void watch(pid_t group) { tell(group); }
  void forget(pid_t group) { tell(-group); }
  pid_t pid() const { return pid_; }
  /// The value of SHARDGRAD_RUN in the environment of all that it guards; of this launch alone.
  const std::string& mark() const { return mark_; }

 private:
  void tell(pid_t group);

  std::string mark_;
  Fd pipe_;
  pid_t pid_ = -1;
};

}  // namespace sg::cli
