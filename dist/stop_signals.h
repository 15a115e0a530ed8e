// Ctrl-C and SIGTERM, for programs whose training loop ends after the step under way.
#pragma once

#include <chrono>

#include "core/check.h"

namespace sg::dist {

/// Asks the training loops of this process to finish their step and end. Set by SIGINT and SIGTERM
/// after install_stop_signals(); a second signal, a tenth of a second later or more, ends the
/// process at once. The handlers run on a thread of their own; the calling thread, and the threads
/// and programs that it starts later, block both signals: a program must unblock them itself. A
/// program of several processes calls it when they have joined (Job): who waits for others to come
/// does not look, and until then a signal ends the process at once.
void install_stop_signals();
bool stop_signalled();
/// The same, for one that may be on its way: it waits so long for it, if they are installed.
bool stop_signalled_within(std::chrono::milliseconds patience);

/// Thrown by Job::run where this process was told to stop and misses a rank: the same signal has
/// ended that one, which had not asked for it yet. A stop like any other, and no failure.
class Stopped : public Error {
 public:
  using Error::Error;
};

}  // namespace sg::dist
