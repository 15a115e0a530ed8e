#include "dist/cli/children.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <system_error>
#include <thread>

#include "dist/cli/spawn.h"

namespace sg::cli {
namespace {

struct NamedSignal {
  int signal;
  const char* name;
};

constexpr NamedSignal kSignals[] = {
    {SIGHUP, "SIGHUP"},   {SIGINT, "SIGINT"},   {SIGQUIT, "SIGQUIT"}, {SIGILL, "SIGILL"},
    {SIGTRAP, "SIGTRAP"}, {SIGABRT, "SIGABRT"}, {SIGBUS, "SIGBUS"},   {SIGFPE, "SIGFPE"},
    {SIGKILL, "SIGKILL"}, {SIGUSR1, "SIGUSR1"}, {SIGSEGV, "SIGSEGV"}, {SIGUSR2, "SIGUSR2"},
    {SIGPIPE, "SIGPIPE"}, {SIGALRM, "SIGALRM"}, {SIGTERM, "SIGTERM"}, {SIGXCPU, "SIGXCPU"},
    {SIGXFSZ, "SIGXFSZ"}, {SIGSYS, "SIGSYS"},
};

// The parent of a process by /proc/<pid>/stat, "pid (any name) state parent ..."; -1 if it is gone.
pid_t parent_of(const std::string& pid) {
  std::ifstream file("/proc/" + pid + "/stat");
  std::string text;
  std::getline(file, text, '\0');
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos || name_end + 4 >= text.size()) return -1;
  pid_t parent = -1;
  std::from_chars(text.data() + name_end + 4, text.data() + text.size(), parent);
  return parent;
}

// Children of this process, and orphans below it: it is a subreaper.
std::set<pid_t> children_of_this_process() {
  std::set<pid_t> found;
  const pid_t self = ::getpid();
  std::error_code error;
  for (auto entry = std::filesystem::directory_iterator("/proc", error);
       !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.find_first_not_of("0123456789") == std::string::npos && parent_of(name) == self)
      found.insert(static_cast<pid_t>(std::stol(name)));
  }
  return found;
}

using Clock = std::chrono::steady_clock;

// Waits for the end of a killed child; false if that does not come.
bool reap(pid_t pid, Clock::time_point deadline) {
  for (;;) {
    const pid_t ended = ::waitpid(pid, nullptr, WNOHANG);
    if (ended == pid || (ended < 0 && errno != EINTR)) return true;
    if (ended == 0 && Clock::now() >= deadline) return false;
    if (ended == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace

int End::status() const { return signalled ? kSignalStatus + code : code; }

std::string signal_name(int signal) {
  for (const NamedSignal& named : kSignals)
    if (named.signal == signal) return named.name;
  return fmt::format("SIG{}", signal);
}

Children::Children(Guardian& guardian) : guardian_(guardian), before_(children_of_this_process()) {
  before_.insert(guardian.pid());
}

Children::~Children() { sweep(); }

Streams Children::start(const Program& program) {
  Pipe out = make_pipe(), err = make_pipe();
  const pid_t pid = spawn({.command = program.command,
                           .environment = program.environment,
                           .out = out.write.get(),
                           .err = err.write.get(),
                           .inherited = program.inherited,
                           .input = program.input});
  children_.push_back({.pid = pid});
  guardian_.watch(pid);
  return {.out = std::move(out.read), .err = std::move(err.read)};
}

bool Children::all_ended() const {
  return std::all_of(children_.begin(), children_.end(), [](const Child& c) { return c.end; });
}

std::vector<int> Children::newly_ended() {
  std::vector<int> ended;
  for (std::size_t i = 0; i < children_.size(); ++i) {
    if (children_[i].end) continue;
    siginfo_t info{};
    if (::waitid(P_PID, static_cast<id_t>(children_[i].pid), &info, WEXITED | WNOHANG | WNOWAIT))
      fail_errno("cannot wait for a process");
    if (info.si_pid == 0) continue;
    children_[i].end = End{.signalled = info.si_code != CLD_EXITED, .code = info.si_status};
    ended.push_back(static_cast<int>(i));
  }
  for (const pid_t orphan : strangers()) ::waitpid(orphan, nullptr, WNOHANG);
  return ended;
}

void Children::signal_all(int signal) {
  for (const Child& child : children_) {
    if (child.end) continue;
    ::kill(-child.pid, signal);
    ::kill(-child.pid, SIGCONT);
  }
}

void Children::kill_all() {
  for (Child& child : children_) {
    if (child.end) continue;
    child.killed = true;
    ::kill(-child.pid, SIGKILL);
  }
}

std::vector<int> Children::give_up() {
  std::vector<int> undead;
  for (std::size_t i = 0; i < children_.size(); ++i) {
    if (children_[i].end) continue;
    children_[i].end = End{.signalled = true, .code = SIGKILL};
    children_[i].given_up = true;
    undead.push_back(static_cast<int>(i));
  }
  return undead;
}

std::set<pid_t> Children::strangers() const {
  std::set<pid_t> found = children_of_this_process();
  for (const pid_t pid : before_) found.erase(pid);
  for (const Child& child : children_) found.erase(child.pid);
  return found;
}

std::vector<pid_t> Children::sweep() {
  std::vector<pid_t> undead;
  for (const Child& child : children_) ::kill(-child.pid, SIGKILL);
  Clock::time_point deadline = Clock::now() + kDying;
  const auto bury = [&](pid_t pid, bool at_once = false) {
    if (reap(pid, at_once ? Clock::now() : deadline)) return;
    undead.push_back(pid);
    before_.insert(pid);  // a later start is not to wait for it again
  };
  for (const Child& child : children_) {
    bury(child.pid, child.given_up);
    guardian_.forget(child.pid);
  }
  children_.clear();
  // One that is killed may leave children of its own, which become ours.
  for (std::set<pid_t> left = strangers(); !left.empty(); left = strangers()) {
    deadline = Clock::now() + kDying;
    for (const pid_t pid : left) ::kill(pid, SIGKILL);
    for (const pid_t pid : left) bury(pid);
  }
  return undead;
}

}  // namespace sg::cli
