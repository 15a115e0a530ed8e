// Waiting with deadlines for non-blocking sockets, of which a write never raises SIGPIPE.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "dist/processes/store_protocol.h"

namespace sg::dist::store {

/// A moment after which a wait is an error.
class Deadline {
 public:
  using Clock = std::chrono::steady_clock;
  explicit Deadline(std::chrono::milliseconds time);  ///< 0: none
  bool passed() const { return at_ && Clock::now() >= *at_; }
  /// What is left in milliseconds for poll(), rounded up; -1 without a deadline.
  int poll_ms() const;
  /// The time left, at most `most`.
  std::chrono::milliseconds left(std::chrono::milliseconds most) const;
  const std::optional<Clock::time_point>& at() const { return at_; }

 private:
  std::optional<Clock::time_point> at_;
};

/// False with `why` if it was not all taken before the deadline, or the connection ended.
bool send_all(int fd, Bytes bytes, const Deadline& deadline, std::string& why);
/// Waits for bytes and appends them. False with `why` at the deadline or the connection's end.
bool receive_some(int fd, std::string& bytes, const Deadline& deadline, std::string& why);

/// Waits for poll()'s events. False at the deadline.
bool wait_for(int fd, short events, const Deadline& deadline);
std::string error_text(int error);  ///< of an errno

/// A thread that gets no signals: they are the program's.
std::thread start_quiet_thread(std::function<void()> work);

}  // namespace sg::dist::store
