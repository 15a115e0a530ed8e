// Runs the program `shardgrad` as a user does, with a deadline.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "dist/cli/fd.h"
#include "tests/support/files.h"
#include "tests/support/processes.h"

namespace sg::cli {

using namespace test;

constexpr double kDeadline = 20;  // seconds of one run, on a loaded machine

/// One start of `shardgrad run`.
class Launch {
 public:
  /// `arguments` follow `shardgrad run`. Of this process's own variables those of a job are left
  /// out.
  explicit Launch(const Words& arguments, const Variables& variables = {}) {
    Pipe out = make_pipe(), err = make_pipe();
    Words words{SG_BINARY_DIR "/shardgrad", "run"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    pid_ = start(words[0], words, environment_with(variables, of_a_job), out.write.get(),
                 err.write.get());
    pipes_[0] = std::move(out.read);
    pipes_[1] = std::move(err.read);
  }
  ~Launch() {
    if (pid_ > 0 && !status_) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
  }
  Launch(const Launch&) = delete;

  pid_t pid() const { return pid_; }
  void signal(int number) const { ::kill(pid_, number); }
  const std::string& out() const { return text_[0]; }
  const std::string& err() const { return text_[1]; }

  /// Reads until standard output has `count` lines with `text`.
  bool says(const std::string& text, int count = 1) {
    return read_until([&] {
      int found = 0;
      for (const std::string& line : lines_of(out())) found += line.find(text) != std::string::npos;
      return found >= count;
    });
  }
  /// Reads until f() holds of what was read.
  bool reads_until(const std::function<bool()>& f) { return read_until(f); }
  /// Reads all, waits and returns the exit status; -1 past the deadline, 1000 + a signal that
  /// killed the launcher itself.
  int wait() {
    if (status_) return *status_;
    if (!read_until([] { return false; }) && (pipes_[0].open() || pipes_[1].open())) return -1;
    int raw = 0;
    ::waitpid(pid_, &raw, 0);
    status_ = WIFEXITED(raw) ? WEXITSTATUS(raw) : 1000 + WTERMSIG(raw);
    return *status_;
  }
  /// No reader any more, as after `| head -1`.
  void close_out() { pipes_[0].reset(); }

 private:
  static bool of_a_job(const std::string& name) {
    static const std::set<std::string> names{"RANK",        "WORLD_SIZE",  "LOCAL_RANK",
                                             "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS"};
    return names.contains(name) || name.starts_with("SHARDGRAD_");
  }

  // True if f() holds; false at the end of both pipes, or past the deadline.
  bool read_until(const std::function<bool()>& f) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(kDeadline);
    while (!f()) {
      pollfd polls[2];
      for (int i : {0, 1}) polls[i] = {.fd = pipes_[i].get(), .events = POLLIN, .revents = 0};
      if (!pipes_[0].open() && !pipes_[1].open()) return false;
      if (std::chrono::steady_clock::now() > end) return false;
      if (::poll(polls, 2, 100) <= 0) continue;
      for (int i : {0, 1}) {
        if (polls[i].revents == 0) continue;
        char buffer[65536];
        const ssize_t count = ::read(pipes_[i].get(), buffer, sizeof buffer);
        if (count > 0) text_[i].append(buffer, static_cast<std::size_t>(count));
        if (count == 0) pipes_[i].reset();
      }
    }
    return true;
  }

  pid_t pid_ = -1;
  Fd pipes_[2];
  std::string text_[2];
  std::optional<int> status_;
};

/// The launcher's own lines on standard error. (A shell, too, says there that a child was
/// terminated.)
inline Words own_lines(const Launch& launch) {
  Words own;
  for (const std::string& line : lines_of(launch.err()))
    if (line.starts_with("shardgrad run: ")) own.push_back(line);
  return own;
}

/// The options, then `/bin/sh -c script`.
inline Words shell(Words options, const std::string& script) {
  for (const char* word : {"/bin/sh", "-c"}) options.push_back(word);
  options.push_back(script);
  return options;
}

}  // namespace sg::cli
