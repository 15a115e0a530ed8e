#include "dist/processes/store_io.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <system_error>

namespace sg::dist::store {

using std::chrono::milliseconds;

Deadline::Deadline(milliseconds time) {
  constexpr std::chrono::hours kForever(24 * 365);  // what is longer might overflow the clock
  if (time > milliseconds(0)) at_ = Clock::now() + std::min<milliseconds>(time, kForever);
}

int Deadline::poll_ms() const {
  if (!at_) return -1;
  const auto left = std::chrono::ceil<milliseconds>(*at_ - Clock::now()).count();
  return static_cast<int>(std::clamp<long long>(left, 0, INT_MAX));
}

milliseconds Deadline::left(milliseconds most) const {
  return at_ ? std::min(most, milliseconds(poll_ms())) : most;
}

std::string error_text(int error) { return std::generic_category().message(error); }

bool wait_for(int fd, short events, const Deadline& deadline) {
  for (;;) {
    pollfd entry{fd, events, 0};
    const int n = poll(&entry, 1, deadline.poll_ms());
    if (n > 0) return true;
    if (n == 0 && deadline.passed()) return false;
    if (n < 0 && errno != EINTR) return false;
  }
}

bool send_all(int fd, Bytes bytes, const Deadline& deadline, std::string& why) {
  while (!bytes.empty()) {
    const ssize_t n = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      why = "it takes no bytes";
      if (!wait_for(fd, POLLOUT, deadline)) return false;
    } else if (errno != EINTR) {
      why = error_text(errno);
      return false;
    }
  }
  return true;
}

bool receive_some(int fd, std::string& bytes, const Deadline& deadline, std::string& why) {
  std::array<char, 16384> chunk;
  for (;;) {
    const ssize_t n = recv(fd, chunk.data(), chunk.size(), 0);
    if (n > 0) {
      bytes.append(chunk.data(), static_cast<std::size_t>(n));
      return true;
    }
    if (n == 0) {
      why = "the connection was closed";
      return false;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
      why = "it accepts the connection and then says nothing";
      if (!wait_for(fd, POLLIN, deadline)) return false;
    } else if (errno != EINTR) {
      why = error_text(errno);
      return false;
    }
  }
}

std::thread start_quiet_thread(std::function<void()> work) {
  sigset_t blocked, before;
  sigfillset(&blocked);
  // A fault of the thread's own, and what a profiler sends, reach their handlers.
  for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGPROF}) {
    sigdelset(&blocked, own);
  }
  pthread_sigmask(SIG_SETMASK, &blocked, &before);
  std::thread thread;
  try {
    thread = std::thread(std::move(work));
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

}  // namespace sg::dist::store
