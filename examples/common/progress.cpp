#include "examples/common/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace sg::examples {
namespace {

constexpr auto kDrawInterval = std::chrono::milliseconds(100);

bool terminal() {
  const char* term = std::getenv("TERM");
  return isatty(STDERR_FILENO) == 1 && term != nullptr && std::string_view(term) != "dumb";
}

std::size_t terminal_width() {
  winsize size{};
  const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

}  // namespace

Progress::Progress(std::string label, std::int64_t total, std::int64_t batch, bool show)
    : label_(std::move(label)), total_(total), batch_(batch), shown_(show && terminal()) {}

Progress::~Progress() { clear(); }

void Progress::clear() {
  if (!std::exchange(drawn_, false)) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
}

void Progress::draw(std::int64_t done, Clock::time_point now) {
  next_draw_ = now + kDrawInterval;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double rate = static_cast<double>(done) / std::max(seconds, 1e-9);
  const std::string left = fmt::format("{} {:3}% |", label_, 100 * done / total_);
  const std::string right =
      fmt::format("| {}/{} steps, {} samples/s, {} left", done, total_,
                  thousands(std::llround(rate * static_cast<double>(batch_))),
                  duration(static_cast<double>(total_ - done) / std::max(rate, 1e-9)));
  const std::size_t used = left.size() + right.size() + 1, width = terminal_width();
  const std::size_t cells = width > used ? std::min<std::size_t>(width - used, 40) : 0;
  const std::size_t full =
      cells * static_cast<std::size_t>(done) / static_cast<std::size_t>(total_);
  const std::string bar = left + std::string(full, '#') + std::string(cells - full, '-') + right;
  fmt::print(stderr, "\r{}\x1b[K", std::string_view(bar).substr(0, width - 1));
  std::fflush(stderr);
  drawn_ = true;
}

void Progress::line(std::string_view text) {
  clear();
  fmt::print("{}\n", text);
  std::fflush(stdout);
  next_draw_ = {};
}

std::string thousands(std::int64_t value) {
  std::string digits = std::to_string(value);
  for (std::ptrdiff_t i = std::ssize(digits) - 3; i > (value < 0 ? 1 : 0); i -= 3)
    digits.insert(static_cast<std::size_t>(i), ",");
  return digits;
}

std::string duration(double seconds) {
  const std::int64_t s = std::llround(std::min(seconds, 1e9));
  return s < 3600 ? fmt::format("{}:{:02}", s / 60, s % 60)
                  : fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

}  // namespace sg::examples
