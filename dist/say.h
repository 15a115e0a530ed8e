// Messages for people on standard error.
#pragma once

#include <fmt/core.h>

#include <cstdio>
#include <string>
#include <utility>

namespace sg {

/// Writes to standard error what fmt::print would, and never throws: that nobody reads a message
/// (`2>/dev/full`, a pipe that has ended) must not be what ends a program.
template <class... Args>
void say_error(fmt::format_string<Args...> format, Args&&... args) noexcept {
  try {
    const std::string text = fmt::format(format, std::forward<Args>(args)...);
    std::fwrite(text.data(), 1, text.size(), stderr);
    std::fflush(stderr);
  } catch (...) {  // no memory for it
  }
}

}  // namespace sg
