// Ctrl-C and SIGTERM, for programs whose training loop ends after the step under way.
#pragma once

#include <chrono>

#include "core/check.h"

namespace sg::dist {

/// Asks the training loops of this process to finish their step and end. Set by SIGINT and SIGTERM
/// after install_stop_signals(); a second signal, a tenth of a second later or more, ends the
/// process at once. The handlers run on a thread of their own; the calling thread, OpenMP's, and
/// the threads and programs that it starts later, block both signals: a program must unblock them
/// itself. A program of several processes calls it between Job's constructor, which does not ask
/// stop_signalled() while it waits for the others, and Job::run().
void install_stop_signals();
bool stop_signalled();
/// Waits until stop_signalled(), `patience` at most; not at all before install_stop_signals().
bool stop_signalled_within(std::chrono::milliseconds patience);

/// Thrown by Job::run() in a process that is told to stop, or is within 0.7 s, and misses a rank in
/// the job's first collective: the signal ends a rank that has not come to install_stop_signals()
/// yet, which is no failure. A launcher's signal to those that a crash has left looks the same
/// there; the launcher, which has seen the crash, names it.
class Stopped : public Error {
 public:
  using Error::Error;
};

}  // namespace sg::dist
