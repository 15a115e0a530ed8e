// Bytes of a stream, cut into lines that carry the name of their rank.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace sg::cli {

class LinePrefixer {
 public:
  /// A line longer than this is written as several lines, so that memory is bounded.
  static constexpr std::size_t kLongestLine = 64 * 1024;
  /// What last_line() keeps of a line.
  static constexpr std::size_t kKept = 400;

  explicit LinePrefixer(std::string prefix) : prefix_(std::move(prefix)) {}

  /// Appends to `out` every line that is complete with `bytes`, prefix and newline with it.
  void feed(std::string_view bytes, std::string& out);
  /// Appends what was left without a newline, as a line.
  void finish(std::string& out);
  /// The last line with something in it, without the prefix; its first bytes if it is long.
  const std::string& last_line() const { return last_; }

 private:
  void emit(std::string& out);

  std::string prefix_, partial_, last_;
  bool cut_ = false;  ///< partial_ continues a line of which a piece has been written
};

}  // namespace sg::cli
