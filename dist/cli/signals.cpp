#include "dist/cli/signals.h"

#include <signal.h>
#include <sys/signalfd.h>

namespace sg::cli {
namespace {

Fd descriptor_of(const sigset_t& set) {
  Fd fd(::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
  if (!fd.open()) fail_errno("cannot wait for signals");
  return fd;
}

bool ignored(int signal) {
  struct sigaction action {};
  return ::sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

}  // namespace

Signals::Signals() {
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGCHLD, SIG_DFL);  // were it ignored, children could not be waited for
  sigset_t stop, child, both;
  sigemptyset(&stop);
  sigemptyset(&child);
  sigaddset(&stop, SIGINT);
  sigaddset(&stop, SIGTERM);
  if (!ignored(SIGHUP)) sigaddset(&stop, SIGHUP);
  sigaddset(&child, SIGCHLD);
  both = stop;
  sigaddset(&both, SIGCHLD);
  if (::sigprocmask(SIG_BLOCK, &both, nullptr) != 0) fail_errno("cannot block signals");
  stop_ = descriptor_of(stop);
  child_ = descriptor_of(child);
}

std::optional<int> Signals::take(const Fd& fd) {
  signalfd_siginfo info;
  if (::read(fd.get(), &info, sizeof info) != sizeof info) return std::nullopt;
  return static_cast<int>(info.ssi_signo);
}

}  // namespace sg::cli
