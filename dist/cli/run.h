// `shardgrad run`: starts the processes of one node and ends them together.
#pragma once

#include "dist/cli/run_options.h"

namespace sg::cli {

/// Starts, waits, starts again if asked to, and returns the exit status: 0; that of the rank that
/// failed first (128 + the signal, if one killed it); or 128 + the signal that stopped all. The
/// cause is the last line on standard error. Throws UsageError or StartError if nothing was run.
/// Changes this process's signals, and makes it a subreaper: for a program's main() alone.
int run(const RunOptions& options);

}  // namespace sg::cli
