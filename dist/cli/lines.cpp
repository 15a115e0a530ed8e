#include "dist/cli/lines.h"

#include <algorithm>

namespace sg::cli {

void LinePrefixer::emit(std::string& out) {
  out.append(prefix_).append(partial_).push_back('\n');
  if (partial_.find_first_not_of(" \t\r") != std::string::npos)
    last_.assign(partial_, 0, std::min(partial_.size(), kKept));
  partial_.clear();
}

void LinePrefixer::feed(std::string_view bytes, std::string& out) {
  while (!bytes.empty()) {
    const std::size_t newline = bytes.find('\n');
    const std::size_t length = std::min(newline, bytes.size());  // of this line's part
    const std::size_t taken = std::min(length, kLongestLine - partial_.size());
    partial_.append(bytes.substr(0, taken));
    if (taken < length || (newline == std::string_view::npos && partial_.size() == kLongestLine)) {
      emit(out);
      cut_ = true;
      bytes.remove_prefix(taken);
    } else if (newline == std::string_view::npos) {
      return;
    } else {
      if (!partial_.empty() || !cut_) emit(out);  // the newline of a piece has been written
      cut_ = false;
      bytes.remove_prefix(taken + 1);
    }
  }
}

void LinePrefixer::finish(std::string& out) {
  if (!partial_.empty()) emit(out);
  cut_ = false;
}

}  // namespace sg::cli
