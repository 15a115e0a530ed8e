#include "dist/cli/spawn.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "dist/cli/fd.h"

namespace sg::cli {
namespace {

std::vector<char*> pointers(const std::vector<std::string>& words) {
  std::vector<char*> all;
  for (const std::string& word : words) all.push_back(const_cast<char*>(word.c_str()));
  all.push_back(nullptr);
  return all;
}

// In the child, which shares nothing but has only what was prepared: no allocation from here on.
[[noreturn]] void execute(const Spawn& what, pid_t launcher, char** argv, char** envp, int null,
                          int report) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != launcher) ::_exit(kCannotStartStatus);  // it died before the line above
  // A shell starts jobs in the background with SIGINT ignored; ours are told of it by a forwarded
  // one. The launcher's own mask and dispositions are not for the program.
  for (const int signal : {SIGINT, SIGTERM, SIGPIPE, SIGCHLD}) ::signal(signal, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (!what.input) ::dup2(null, STDIN_FILENO);
  ::dup2(what.out, STDOUT_FILENO);
  ::dup2(what.err, STDERR_FILENO);
  for (const int fd : what.inherited) ::fcntl(fd, F_SETFD, 0);
  ::execvpe(argv[0], argv, envp);
  const int error = errno;
  if (::write(report, &error, sizeof error) < 0) ::_exit(kFailedStatus);
  ::_exit(kCannotStartStatus);
}

}  // namespace

pid_t spawn(const Spawn& what) {
  std::vector<char*> argv = pointers(what.command), envp = pointers(what.environment);
  const Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!null.open()) fail_errno("cannot open /dev/null");
  Pipe report = make_pipe();  // closed by a successful exec
  const pid_t launcher = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) fail_errno("cannot start a process");
  if (pid == 0) execute(what, launcher, argv.data(), envp.data(), null.get(), report.write.get());

  ::setpgid(pid, pid);  // here too: whoever comes first, the group is there when this returns
  report.write.reset();
  int error = 0;
  ssize_t count = 0;
  do {
    count = ::read(report.read.get(), &error, sizeof error);
  } while (count < 0 && errno == EINTR);
  if (count == sizeof error) {
    while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) continue;
    throw StartError(
        fmt::format("cannot start {}: {}", what.command.front(), std::strerror(error)));
  }
  return pid;
}

}  // namespace sg::cli
