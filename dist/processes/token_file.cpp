#include "dist/processes/token_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

#include "core/check.h"
#include "core/rng.h"

namespace sg::dist {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kRetry{20};
constexpr milliseconds kOthersEnd{2'000};  // for a process that ends and still holds the file

std::string folder() {
  for (const char* name : {"XDG_RUNTIME_DIR", "TMPDIR"}) {
    const char* value = std::getenv(name);
    if (value != nullptr && *value == '/' && ::access(value, W_OK | X_OK) == 0) return value;
  }
  return "/tmp";
}

void check_private(int fd, const std::string& path) {
  struct stat status {};
  SG_CHECK(::fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_uid == ::getuid() &&
               (status.st_mode & 077) == 0,
           "[launch] {} belongs to somebody else or can be read by others; remove it, or set "
           "SHARDGRAD_TOKEN",
           path);
}

// The open file is the one in place, not one that was removed in the meantime.
bool in_place(int fd, const std::string& path) {
  struct stat open {
  }, there{};
  return ::fstat(fd, &open) == 0 && ::lstat(path.c_str(), &there) == 0 &&
         open.st_dev == there.st_dev && open.st_ino == there.st_ino;
}

bool lock(int fd, int kind) {
  while (::flock(fd, kind | LOCK_NB) != 0)
    if (errno != EINTR) return false;
  return true;
}

// What a stop signal removes: a program has not asked for such signals yet while it joins.
constexpr std::array kStops{SIGINT, SIGTERM, SIGHUP};
std::array<char, 4096> doomed_path{};
std::array<bool, kStops.size()> caught{};

void remove_and_die(int signal) {
  ::unlink(doomed_path.data());
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void catch_stops(const std::string& path) {
  path.copy(doomed_path.data(), doomed_path.size() - 1);
  doomed_path[std::min(path.size(), doomed_path.size() - 1)] = '\0';
  for (std::size_t i = 0; i < kStops.size(); ++i) {
    struct sigaction now {};
    caught[i] = ::sigaction(kStops[i], nullptr, &now) == 0 && (now.sa_flags & SA_SIGINFO) == 0 &&
                now.sa_handler == SIG_DFL;
    if (caught[i]) std::signal(kStops[i], remove_and_die);
  }
}

void release_stops() {
  for (std::size_t i = 0; i < kStops.size(); ++i)
    if (std::exchange(caught[i], false)) std::signal(kStops[i], SIG_DFL);
}

}  // namespace

TokenFile::TokenFile(const std::string& job, int port)
    : path_(fmt::format("{}/shardgrad-{}-{:08x}-{}.token", folder(), ::getuid(),
                        static_cast<std::uint32_t>(name_key(job)), port)) {}

TokenFile::~TokenFile() {
  if (file_.open()) {
    ::unlink(path_.c_str());  // ours, by the lock
    release_stops();
    return;
  }
  // What a dead writer has left goes.
  const Fd left(::open(path_.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (left.open() && lock(left.get(), LOCK_EX) && in_place(left.get(), path_))
    ::unlink(path_.c_str());
}

// Opens the file in place, or a new one, and locks it. False: somebody else holds it.
bool TokenFile::take_place() {
  Fd file(::open(path_.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  SG_CHECK(file.open(), "[launch] cannot write the job's token to {}: {}; set SHARDGRAD_TOKEN",
           path_, std::strerror(errno));
  check_private(file.get(), path_);
  if (!lock(file.get(), LOCK_EX) || !in_place(file.get(), path_)) return false;
  file_ = std::move(file);
  return true;
}

void TokenFile::write(const Content& content) {
  const Clock::time_point start = Clock::now();
  while (!take_place()) {
    SG_CHECK(Clock::now() - start < kOthersEnd,
             "[launch] {} is held by another job that starts with the same id and port; set "
             "SHARDGRAD_PORT to another one for each",
             path_);
    std::this_thread::sleep_for(kRetry);
  }
  catch_stops(path_);
  // The newline is the end: nobody takes half of it.
  const std::string text = fmt::format("{} {}\n", content.port, content.token);
  SG_CHECK(::ftruncate(file_.get(), 0) == 0 && ::pwrite(file_.get(), text.data(), text.size(), 0) ==
                                                   static_cast<ssize_t>(text.size()),
           "[launch] cannot write the job's token to {}: {}; set SHARDGRAD_TOKEN", path_,
           std::strerror(errno));
}

TokenFile::Content TokenFile::read(milliseconds deadline) const {
  const Clock::time_point start = Clock::now();
  for (;;) {
    // Closed before it waits: the lock of this look would hold up the next writer.
    if (const Fd file(::open(path_.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC)); file.open()) {
      check_private(file.get(), path_);
      const bool dead = lock(file.get(), LOCK_SH);  // until it is closed
      char text[256];
      const ssize_t count = dead ? 0 : ::read(file.get(), text, sizeof text);
      const char* const end = std::find(text, text + std::max<ssize_t>(count, 0), '\n');
      Content content;
      const auto [space, error] = std::from_chars(text, end, content.port);
      if (error == std::errc() && end < text + count && space + 1 < end) {
        content.token.assign(space + 1, end);
        return content;
      }
    }
    SG_CHECK(
        deadline.count() == 0 || Clock::now() - start < deadline,
        "[launch] rank 0 did not write the job's token to {} within {} ms; is it running on this "
        "host? Else set SHARDGRAD_TOKEN everywhere",
        path_, deadline.count());
    std::this_thread::sleep_for(kRetry);
  }
}

}  // namespace sg::dist
