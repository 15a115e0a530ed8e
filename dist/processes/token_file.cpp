#include "dist/processes/token_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "core/check.h"

namespace sg::dist {
namespace {

std::string folder() {
  for (const char* name : {"XDG_RUNTIME_DIR", "TMPDIR"}) {
    const char* value = std::getenv(name);
    if (value != nullptr && *value == '/' && ::access(value, W_OK | X_OK) == 0) return value;
  }
  return "/tmp";
}

}  // namespace

TokenFile::TokenFile(int port)
    : path_(fmt::format("{}/shardgrad-{}-{}.token", folder(), ::getuid(), port)) {}

TokenFile::~TokenFile() {
  if (mine_) ::unlink(path_.c_str());
}

void TokenFile::write(const Content& content) {
  const std::string text = fmt::format("{} {}", content.port, content.token);
  // Written under another name and moved into place: nobody reads half of it. O_EXCL follows no
  // link.
  const std::string fresh = fmt::format("{}.{}", path_, ::getpid());
  ::unlink(fresh.c_str());
  const int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  SG_CHECK(fd >= 0, "[launch] cannot write the job's token to {}: {}; set SHARDGRAD_TOKEN", fresh,
           std::strerror(errno));
  const ssize_t written = ::write(fd, text.data(), text.size());
  const bool whole = ::close(fd) == 0 && written == static_cast<ssize_t>(text.size());
  SG_CHECK(whole && ::rename(fresh.c_str(), path_.c_str()) == 0,
           "[launch] cannot write the job's token to {}: {}; set SHARDGRAD_TOKEN", path_,
           std::strerror(errno));
  mine_ = true;
}

TokenFile::Content TokenFile::read(std::chrono::milliseconds deadline) const {
  const auto start = std::chrono::steady_clock::now();
  for (;;) {
    const int fd = ::open(path_.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0) {
      struct stat status {};
      const bool known = ::fstat(fd, &status) == 0;
      char text[256];
      const ssize_t count = ::read(fd, text, sizeof text);
      ::close(fd);
      SG_CHECK(known && status.st_uid == ::getuid() && (status.st_mode & 077) == 0,
               "[launch] {} belongs to somebody else or can be read by others; remove it, or set "
               "SHARDGRAD_TOKEN",
               path_);
      Content content;
      const char* end = text + std::max<ssize_t>(count, 0);
      const auto [space, error] = std::from_chars(text, end, content.port);
      if (error == std::errc() && space + 1 < end) {
        content.token.assign(space + 1, end);
        return content;
      }
    }
    SG_CHECK(
        deadline.count() == 0 || std::chrono::steady_clock::now() - start < deadline,
        "[launch] rank 0 did not write the job's token to {} within {} ms; is it running on this "
        "host? Else set SHARDGRAD_TOKEN everywhere",
        path_, deadline.count());
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace sg::dist
