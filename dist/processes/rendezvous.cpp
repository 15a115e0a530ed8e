#include "dist/processes/rendezvous.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <optional>
#include <thread>

#include "core/check.h"
#include "core/rng.h"
#include "dist/processes/reminder.h"
#include "dist/processes/sigpipe.h"
#include "dist/processes/token_file.h"
#include "dist/say.h"

namespace sg::dist {
namespace {

using std::chrono::milliseconds;

// One look for the store where the file says it is; then it is read again.
constexpr milliseconds kFirstSearch{1'000}, kLongestSearch{8'000};
// The store names those who are missing; who does not reach it names rank 0.
constexpr milliseconds kReminder{10'000};
// What the store says at the deadline names those who are missing.
constexpr milliseconds kStoresWord{5'000};

}  // namespace

Rendezvous::Rendezvous(const ProcessEnvironment& environment, const std::string& configuration,
                       milliseconds deadline)
    : environment_(environment), deadline_(deadline), port_(environment.port) {
  try {
    JobIdentity identity{.token = environment_.token,
                         .rank = environment_.rank,
                         .world_size = environment_.world_size,
                         .job = environment_.job,
                         .configuration = fmt::format("{:016x}", name_key(configuration)),
                         .attempt = environment_.attempt};
    std::unique_ptr<TokenFile> file;
    if (identity.token.empty())
      file = std::make_unique<TokenFile>(environment_.job, environment_.port);
    if (environment_.rank == 0) open_store(identity, file.get());
    find_store(identity, file.get());
    client_->wait_all_joined(deadline_.count() == 0 ? milliseconds(0) : deadline_ + kStoresWord);
  } catch (const std::exception& error) {
    if (client_ != nullptr) {
      client_->fail(error.what());
      failed();
    }
    failed_ = true;
    go();
    throw;
  }
}

Rendezvous::~Rendezvous() { go(); }

void Rendezvous::go() {
  client_.reset();
  if (server_ != nullptr) server_->wait_all_gone(failed_ ? kLastWords : kGoodbye);
}

milliseconds Rendezvous::left() const {
  if (deadline_.count() == 0) return milliseconds(0);
  const auto gone = std::chrono::duration_cast<milliseconds>(Clock::now() - start_);
  return std::max(deadline_ - gone, milliseconds(1));
}

void Rendezvous::open_store(JobIdentity& identity, TokenFile* file) {
  const ProcessEnvironment& e = environment_;
  if (file != nullptr) identity.token = random_token();
  StoreServer::Options listen;
  // As the launcher does it: the name of a host often means its loopback on that host itself.
  if (!e.several_hosts())
    listen.address = e.address;
  else
    listen.address = e.address.find(':') != std::string::npos ? "::" : "";
  listen.port = e.port;
  listen.listening_socket = e.listening_socket;
  listen.join_deadline = deadline_;
  try {
    server_ = std::make_unique<StoreServer>(identity, listen);
  } catch (const Error&) {
    // A launcher that knows nothing of us cannot keep a port free: where a file says where the
    // store is, another one will do.
    if (file == nullptr || e.listening_socket >= 0) throw;
    listen.port = 0;
    server_ = std::make_unique<StoreServer>(identity, listen);
  }
  port_ = server_->port();
  if (file != nullptr) file->write({port_, identity.token});
}

// Everybody joins with proof of the token, rank 0 included.
void Rendezvous::find_store(JobIdentity& identity, TokenFile* file) {
  const ProcessEnvironment& e = environment_;
  std::optional<Reminder> reminder;
  if (e.rank > 0)
    reminder.emplace(kReminder, [&](milliseconds waited) {
      const std::string where =
          file != nullptr ? "writes to " + file->path() + " where the store is"
                          : fmt::format("holds the store at {}, port {}", e.address, e.port);
      say_error("[launch] rank {} waits for rank 0, which {} ({} s)\n", e.rank, where,
                waited.count() / 1000);
    });
  milliseconds search = file != nullptr && e.rank > 0 ? kFirstSearch : left();
  for (;; search = std::min(2 * search, kLongestSearch)) {
    if (e.rank > 0 && file != nullptr) {
      const TokenFile::Content content = file->read(left());
      port_ = content.port;
      identity.token = content.token;
    }
    try {
      client_ = std::make_unique<StoreClient>(e.address, port_, identity, left(), search);
      return;
    } catch (const StoreNotFound& error) {
      // A file may be read in the moment in which its job ends and the next one has yet to come.
      if (e.rank == 0 || file == nullptr) throw;
      SG_CHECK(deadline_.count() == 0 || Clock::now() - start_ < deadline_,
               "[launch] rank {} found no store of the job within {} ms; at last: {}", e.rank,
               deadline_.count(), error.what());
      std::this_thread::sleep_for(milliseconds(20));
    }
  }
}

// "2 0": rank 2 fails because of rank 0. The launcher sees only who ends first.
void Rendezvous::failed() {
  failed_ = true;
  struct stat status {};
  const int fd = environment_.failure_fd;
  if (fd < 0 || ::fstat(fd, &status) != 0 || !S_ISFIFO(status.st_mode)) return;
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  const std::optional<Failure> failure = client_->failure();
  const std::string line =
      fmt::format("{} {}\n", environment_.rank, failure ? failure->rank : environment_.rank);
  const NoSigpipe quiet;
  // So few bytes go in one piece. If nobody reads, nobody is told.
  [[maybe_unused]] const ssize_t written = ::write(fd, line.data(), line.size());
}

}  // namespace sg::dist
