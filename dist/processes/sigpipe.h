// Gloo writes to its sockets with writev(), which raises SIGPIPE where the peer is gone: a survivor
// would die of the death of another. The signal is not ignored, as a program that prints to a pipe
// that has ended (`| head -1`) is to end of it; it is masked on the threads that write for Gloo,
// while they do. It goes to the thread that wrote, and to no other.
#pragma once

#include <csignal>
#include <ctime>

namespace sg::dist {

/// In this scope a write to an ended connection is an error of that write alone. A scope costs
/// three system calls; one inside of another costs one.
class NoSigpipe {
 public:
  NoSigpipe() {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    sigset_t before;
    pthread_sigmask(SIG_BLOCK, &pipe_, &before);
    outer_ = sigismember(&before, SIGPIPE) == 1;
  }
  ~NoSigpipe() {
    if (outer_) return;
    const timespec now{};
    sigtimedwait(&pipe_, nullptr, &now);  // takes the one that came, if one did
    pthread_sigmask(SIG_UNBLOCK, &pipe_, nullptr);
  }
  NoSigpipe(const NoSigpipe&) = delete;
  NoSigpipe& operator=(const NoSigpipe&) = delete;

 private:
  sigset_t pipe_;
  bool outer_;  ///< it was masked before
};

}  // namespace sg::dist
