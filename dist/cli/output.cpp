#include "dist/cli/output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

namespace sg::cli {
namespace {

constexpr std::size_t kMostQueued = 1 << 20;
constexpr std::size_t kRead = 64 * 1024;

}  // namespace

Output::Output(const RunOptions& options) : options_(options) {
  if (options.log_dir.empty()) return;
  std::error_code error;
  std::filesystem::create_directories(options.log_dir, error);
  if (error) usage_error("--log-dir {}: cannot be made: {}", options.log_dir, error.message());
}

Fd Output::open_log(int local_rank, const char* ending) const {
  if (options_.log_dir.empty()) return Fd();
  const std::string path =
      fmt::format("{}/rank{}.{}", options_.log_dir, options_.rank(local_rank), ending);
  Fd log(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!log.open())
    usage_error("--log-dir {}: {} cannot be written: {}", options_.log_dir, path,
                std::strerror(errno));
  return log;
}

void Output::add(int local_rank, Fd out, Fd err) {
  std::erase_if(streams_, [&](const Stream& old) { return old.local_rank == local_rank; });
  const std::string prefix = fmt::format("[rank{}] ", options_.rank(local_rank));
  const auto add_stream = [&](Fd pipe, int target, const char* ending) {
    ::fcntl(pipe.get(), F_SETFL, O_NONBLOCK);  // of this end alone
    streams_.push_back({.pipe = std::move(pipe),
                        .log = open_log(local_rank, ending),
                        .local_rank = local_rank,
                        .target = target,
                        .shown = options_.on_terminal(local_rank) && !terminals_[target].gone,
                        .lines = LinePrefixer(prefix)});
  };
  add_stream(std::move(out), 0, "out");
  add_stream(std::move(err), 1, "err");
}

void Output::ask(std::vector<pollfd>& polls) {
  for (Stream& stream : streams_) {
    stream.asked = kNotAsked;
    if (!stream.pipe.open()) continue;
    if (stream.shown && terminals_[stream.target].queue.size() >= kMostQueued) continue;
    stream.asked = polls.size();
    polls.push_back({.fd = stream.pipe.get(), .events = POLLIN, .revents = 0});
  }
  for (Terminal& terminal : terminals_) {
    terminal.asked = kNotAsked;
    if (terminal.queue.empty()) continue;
    terminal.asked = polls.size();
    polls.push_back({.fd = terminal.fd, .events = POLLOUT, .revents = 0});
  }
}

void Output::serve(const std::vector<pollfd>& polls) {
  for (Stream& stream : streams_)
    if (stream.asked != kNotAsked && polls[stream.asked].revents != 0) read_from(stream);
  for (int target : {0, 1}) {
    const std::size_t asked = terminals_[target].asked;
    if (asked != kNotAsked && polls[asked].revents != 0) write_to(target);
  }
}

void Output::read_from(Stream& stream) {
  char buffer[kRead];
  const ssize_t count = ::read(stream.pipe.get(), buffer, sizeof buffer);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  std::string_view bytes(buffer, static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
  std::string lines;
  if (bytes.empty()) {
    stream.lines.finish(lines);
    stream.pipe.reset();
  } else {
    stream.lines.feed(bytes, lines);
  }
  if (stream.shown) terminals_[stream.target].queue += lines;
  while (stream.log.open() && !bytes.empty()) {
    const ssize_t written = ::write(stream.log.get(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {  // a full disk must not end the training
      say(fmt::format("shardgrad run: --log-dir {}: rank {}'s log ends here: {}", options_.log_dir,
                      options_.rank(stream.local_rank), std::strerror(errno)));
      stream.log.reset();
      break;
    }
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
}

// A pipe that is ready for writing takes PIPE_BUF bytes at once. The terminal itself is not made
// non-blocking: it is shared with the shell.
void Output::write_to(int target) {
  Terminal& terminal = terminals_[target];
  const std::size_t left = terminal.queue.size() - terminal.written;
  const ssize_t written = ::write(terminal.fd, terminal.queue.data() + terminal.written,
                                  std::min<std::size_t>(left, PIPE_BUF));
  if (written < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (written >= 0) {
    terminal.written += static_cast<std::size_t>(written);
    // Not each time: it moves all that is left.
    if (terminal.written == terminal.queue.size() || terminal.written >= kMostQueued / 2)
      terminal.queue.erase(0, std::exchange(terminal.written, 0));
    return;
  }
  // Nobody reads: the processes are to learn it as they would without us, by SIGPIPE.
  terminal.gone = true;
  terminal.queue.clear();
  terminal.written = 0;
  for (Stream& stream : streams_) {
    if (!stream.shown || stream.target != target) continue;
    stream.shown = false;
    if (!stream.log.open()) stream.pipe.reset();
  }
}

void Output::flush(int stop_fd, std::chrono::milliseconds patience) {
  for (;;) {
    std::vector<pollfd> polls{{.fd = stop_fd, .events = POLLIN, .revents = 0}};
    for (int target : {0, 1})
      if (!terminals_[target].queue.empty())
        polls.push_back({.fd = terminals_[target].fd, .events = POLLOUT, .revents = 0});
    if (polls.size() == 1) return;
    const int ready_count = ::poll(polls.data(), polls.size(), static_cast<int>(patience.count()));
    if (ready_count < 0 && errno == EINTR) continue;
    if (ready_count <= 0) return drop_queues();
    bool wrote = false;
    for (int target : {0, 1})
      for (const pollfd& ready : polls)
        if (ready.fd == terminals_[target].fd && ready.revents != 0 && ready.events == POLLOUT) {
          write_to(target);
          wrote = true;
        }
    if (!wrote && polls[0].revents != 0) return drop_queues();
  }
}

void Output::drop_queues() {
  for (Terminal& terminal : terminals_) {
    terminal.queue.clear();
    terminal.written = 0;
  }
}

void Output::finish(int stop_fd, std::chrono::milliseconds patience) {
  for (Stream& stream : streams_) {
    // A pipe holds at most this much; who still writes into it is no process of ours.
    for (int reads = 0; stream.pipe.open() && reads < 64; ++reads) {
      pollfd ready{.fd = stream.pipe.get(), .events = POLLIN, .revents = 0};
      if (::poll(&ready, 1, 0) <= 0) break;
      read_from(stream);
    }
    std::string rest;
    stream.lines.finish(rest);
    if (stream.shown) terminals_[stream.target].queue += rest;
    stream.pipe.reset();
    stream.log.reset();
    stream.shown = false;
  }
  flush(stop_fd, patience);
}

std::string Output::last_error_line(int local_rank) const {
  for (const Stream& stream : streams_)
    if (stream.local_rank == local_rank && stream.target == 1) return stream.lines.last_line();
  return "";
}

void Output::say(std::string_view line) {
  if (terminals_[1].gone) return;
  terminals_[1].queue.append(line).push_back('\n');
}

}  // namespace sg::cli
