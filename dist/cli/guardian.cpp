#include "dist/cli/guardian.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string_view>
#include <system_error>

#include "dist/cli/environment.h"

namespace sg::cli {
namespace {

// Whether a process got `variable` (NAME=value) in its environment; false if it is another user's.
bool has_variable(const std::filesystem::path& process, std::string_view variable) {
  std::ifstream file(process / "environ");
  for (std::string entry; std::getline(file, entry, '\0');)
    if (entry == variable) return true;
  return false;
}

// A process itself and not its number, which the system gives to another one after its end. Where
// the kernel has no such handle (Linux before 5.3, some sandboxes) it is the number.
class ProcessHandle {
 public:
  explicit ProcessHandle(pid_t pid)
      : pid_(pid), fd_(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))) {}
  void kill() const {
    if (fd_.open() && (::syscall(SYS_pidfd_send_signal, fd_.get(), SIGKILL, nullptr, 0) == 0 ||
                       errno == ESRCH))
      return;
    ::kill(pid_, SIGKILL);
  }

 private:
  pid_t pid_;
  Fd fd_;
};

// Kills all that have the variable. False: there was none.
bool kill_marked(std::string_view variable) {
  bool found = false;
  std::error_code error;
  for (auto entry = std::filesystem::directory_iterator("/proc", error);
       !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    pid_t pid = 0;
    const auto [end, wrong] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (wrong != std::errc() || end != name.data() + name.size()) continue;
    const ProcessHandle process(pid);  // before the look: of the one that is seen, or of a dead one
    if (!has_variable(entry->path(), variable)) continue;
    process.kill();
    found = true;
  }
  return found;
}

// The guardian of a launcher above must not take this one for what it guards: it would die before
// it has done its work.
void hide_from_others() {
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry)
    if (std::string_view(*entry).starts_with("SHARDGRAD_RUN="))
      std::memset(*entry, 0, std::strlen(*entry));
}

[[noreturn]] void guard(const Pipe& pipe, Pipe ready, const std::string& mark) {
  hide_from_others();
  // Who reads the launcher's output is not to wait for this.
  for (const int standard : {0, 1, 2}) ::close(standard);
  ::setsid();  // not in the launcher's group, which may be killed as a whole
  ::prctl(PR_SET_NAME, "shardgrad-guard");
  sigset_t all;
  sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
  ready = {};  // closed
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
  // What has not died yet, or was about to start another, is found by the next look; one that is
  // starting a program shows no environment for a moment, so a single empty look proves nothing.
  constexpr int kLooks = 50, kEmptyLooks = 3;
  for (int look = 0, empty = 0; look < kLooks && empty < kEmptyLooks; ++look) {
    empty = kill_marked("SHARDGRAD_RUN=" + mark) ? 0 : empty + 1;
    ::usleep(20'000);
  }
  ::_exit(0);
}

}  // namespace

Guardian::Guardian() : mark_(fmt::format("{}-{}", ::getpid(), random_token().substr(0, 16))) {
  Pipe pipe = make_pipe(), ready = make_pipe();
  pid_ = ::fork();
  if (pid_ < 0) fail_errno("cannot start a process");
  if (pid_ == 0) {
    pipe.write.reset();
    guard(pipe, std::move(ready), mark_);
  }
  pipe_ = std::move(pipe.write);
  // Until it has hidden, a guardian above may end it, and nothing must have been started by then.
  ready.write.reset();
  char none = 0;
  while (::read(ready.read.get(), &none, 1) < 0 && errno == EINTR) continue;
}

Guardian::~Guardian() {
  // Before its pipe ends: there is nothing to guard any more, and it must not look for it. SIGKILL
  // ends it whatever it does, stopped or not.
  ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) continue;
}

void Guardian::tell(pid_t group) {
  // If it has been killed there is nobody to tell; SIGPIPE is ignored. Few bytes go in one piece.
  while (::write(pipe_.get(), &group, sizeof group) < 0 && errno == EINTR) continue;
}

}  // namespace sg::cli
