#include "dist/cli/guardian.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <set>

namespace sg::cli {
namespace {

[[noreturn]] void guard(const Pipe& pipe) {
  ::setsid();  // not in the launcher's group, which may be killed as a whole
  ::prctl(PR_SET_NAME, "shardgrad-guard");
  sigset_t all;
  sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
  std::set<pid_t> groups;
  pid_t group = 0;
  for (;;) {
    const ssize_t count = ::read(pipe.read.get(), &group, sizeof group);
    if (count < 0 && errno == EINTR) continue;
    if (count != sizeof group) break;
    if (group > 0) {
      groups.insert(group);
    } else {
      groups.erase(-group);
    }
  }
  for (const pid_t left : groups) ::kill(-left, SIGKILL);
  ::_exit(0);
}

}  // namespace

Guardian::Guardian() {
  Pipe pipe = make_pipe();
  pid_ = ::fork();
  if (pid_ < 0) fail_errno("cannot start a process");
  if (pid_ == 0) {
    pipe.write.reset();
    guard(pipe);
  }
  pipe_ = std::move(pipe.write);
}

Guardian::~Guardian() {
  pipe_.reset();
  // It ends at once, unless somebody has stopped it; and has nothing left to guard.
  ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) continue;
}

void Guardian::tell(pid_t group) {
  // If it has been killed there is nobody to tell; SIGPIPE is ignored. Few bytes go in one piece.
  while (::write(pipe_.get(), &group, sizeof group) < 0 && errno == EINTR) continue;
}

}  // namespace sg::cli
