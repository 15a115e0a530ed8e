// Pipes whose ends close themselves.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include "dist/cli/errors.h"
#include "dist/fd.h"

namespace sg::cli {

using dist::Fd;

struct Pipe {
  Fd read, write;
};

/// Neither end goes on to a program that a child executes.
inline Pipe make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    fail_errno("cannot make a pipe (two for each process; `ulimit -n` bounds them)");
  return {.read = Fd(ends[0]), .write = Fd(ends[1])};
}

}  // namespace sg::cli
