// The processes' standard output and error: from their pipes to the terminal, line by line with the
// rank before each, and to log files, byte by byte.
#pragma once

#include <poll.h>

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "dist/cli/fd.h"
#include "dist/cli/lines.h"
#include "dist/cli/run_options.h"

namespace sg::cli {

/// Never waits by itself: the caller polls. A terminal that does not take what is written holds the
/// processes up, in their pipes, and not the launcher, which has signals to pass on.
class Output {
 public:
  /// Makes --log-dir; UsageError if that fails.
  explicit Output(const RunOptions& options);

  /// Takes over the reading ends of a process's pipes. Logs are appended to.
  void add(int local_rank, Fd out, Fd err);
  /// Adds what to wait for to `polls`, and serves it when poll() has returned.
  void ask(std::vector<pollfd>& polls);
  void serve(const std::vector<pollfd>& polls);

  /// Reads what is left in the pipes, closes them and writes all, unfinished lines too. Gives up
  /// where the terminal is stuck for `patience`, or stuck and `stop_fd` (a signalfd) becomes
  /// readable. Call it when every process has ended.
  void finish(int stop_fd, std::chrono::milliseconds patience = std::chrono::seconds(60));
  /// What the process last said on standard error; empty if nothing.
  std::string last_error_line(int local_rank) const;
  /// A line of the launcher's own on standard error, after all that came before.
  void say(std::string_view line);

 private:
  struct Stream {
    Fd pipe, log;
    int local_rank, target;  ///< target: of terminals_
    bool shown;
    LinePrefixer lines;
    std::size_t asked = kNotAsked;  ///< index in polls
  };
  struct Terminal {
    int fd;
    std::string queue = {};
    std::size_t written = 0;  ///< bytes of the queue
    bool gone = false;
    std::size_t asked = kNotAsked;
  };
  static constexpr std::size_t kNotAsked = static_cast<std::size_t>(-1);

  void read_from(Stream& stream);
  void write_to(int target);
  void flush(int stop_fd, std::chrono::milliseconds patience);
  void drop_queues();
  Fd open_log(int local_rank, const char* ending) const;

  RunOptions options_;
  std::vector<Stream> streams_;
  Terminal terminals_[2] = {{.fd = 1}, {.fd = 2}};
};

}  // namespace sg::cli
