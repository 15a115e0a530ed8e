// Errors: one exception type whose text says what, where, expected against got, and how to mend it.
#pragma once

#include <fmt/core.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace sg {

/// Every error of the library. The text starts with the op or part in brackets: "[matmul] inner
/// sizes differ: ...".
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws Error with a formatted text.
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace sg

/// Throws sg::Error with the formatted text unless the condition holds. Never compiled out.
#define SG_CHECK(condition, ...)     \
  do {                               \
    if (!(condition)) [[unlikely]] { \
      ::sg::fail(__VA_ARGS__);       \
    }                                \
  } while (false)
