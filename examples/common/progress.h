// A progress bar below the lines of a log, where there is a terminal.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace sg::examples {

using Clock = std::chrono::steady_clock;

/// Lines go to standard output. The bar goes to standard error, if that is a terminal (and TERM is
/// not "dumb"): a log in a file stays clean, and without a terminal there are only lines.
class Progress {
 public:
  /// Of `total` steps of `batch` samples; `label` stands before the bar ("zero3"). Not shown: lines
  /// alone.
  Progress(std::string label, std::int64_t total, std::int64_t batch, bool show = true);
  /// Takes the bar away.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Draws the bar, at most ten times a second. `now` is the time at the end of step `done`.
  void update(std::int64_t done, Clock::time_point now) {
    if (shown_ && now >= next_draw_) draw(done, now);
  }
  /// Prints a line above the bar.
  void line(std::string_view text);

 private:
  void draw(std::int64_t done, Clock::time_point now);
  void clear();

  const std::string label_;
  const std::int64_t total_, batch_;
  const bool shown_;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point next_draw_ = start_;
  bool drawn_ = false;
};

/// "12,345,678".
std::string thousands(std::int64_t value);
/// "0:07", "12:05", "1:02:03".
std::string duration(double seconds);

}  // namespace sg::examples
