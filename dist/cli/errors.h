// How the launcher itself fails, and with which exit status.
#pragma once

#include <fmt/core.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "core/check.h"

namespace sg::cli {

/// What the user can mend: a wrong option, a port in use. Status 2; every other error 1.
class UsageError : public Error {
 public:
  using Error::Error;
};

/// The program cannot be started. Status 127, as in shells.
class StartError : public Error {
 public:
  using Error::Error;
};

inline constexpr int kFailedStatus = 1, kUsageStatus = 2, kCannotStartStatus = 127;
/// A process that a signal killed counts as this plus the signal, as in shells.
inline constexpr int kSignalStatus = 128;

template <class... Args>
[[noreturn]] void usage_error(fmt::format_string<Args...> format, Args&&... args) {
  throw UsageError(fmt::format(format, std::forward<Args>(args)...));
}

/// Throws Error "<what>: <errno's text>".
[[noreturn]] inline void fail_errno(const std::string& what) {
  const int error = errno;
  fail("{}: {}", what, std::strerror(error));
}

}  // namespace sg::cli
