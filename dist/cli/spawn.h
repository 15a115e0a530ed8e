// fork and exec.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace sg::cli {

struct Spawn {
  const std::vector<std::string>& command;
  const std::vector<std::string>& environment;
  int out, err;                       ///< become standard output and error
  const std::vector<int>& inherited;  ///< stay open in the program; all others of ours are closed
  bool input = false;                 ///< standard input is ours; else /dev/null
};

/// Starts a program in a process group of its own, with no signal blocked or ignored that matters
/// to it, and with SIGKILL to come when this process dies. Throws StartError if it cannot be
/// executed: "cannot start ./nothing: No such file or directory".
pid_t spawn(const Spawn& what);

}  // namespace sg::cli
