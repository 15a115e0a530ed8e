#include "dist/processes/store_server.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "core/check.h"
#include "dist/say.h"

namespace sg::dist {

using namespace store;
using std::chrono::milliseconds;

StoreServer::StoreServer(JobIdentity identity, Options options)
    : options_(std::move(options)),
      listening_(options_.listening_socket >= 0 ? adopt_listening(options_.listening_socket)
                                                : listen_on(options_.address, options_.port)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      port_(own_port(listening_.get())),
      max_connections_(4 * static_cast<std::size_t>(std::max(identity.world_size, 1)) + 64),
      job_(std::move(identity)),
      started_(Deadline::Clock::now()) {
  constexpr std::chrono::hours kForever(24 * 365);  // what is longer might overflow the clock
  for (milliseconds* time :
       {&options_.handshake_deadline, &options_.join_deadline, &options_.report_interval}) {
    *time = std::min<milliseconds>(*time, kForever);
  }
  next_report_ = started_ + options_.report_interval;
  SG_CHECK(options_.handshake_deadline > milliseconds(0),
           "[store] a handshake deadline of {}; expected more than 0",
           seconds_text(options_.handshake_deadline));
  SG_CHECK(wake_.open(), "[store] no eventfd: {}", error_text(errno));
  thread_ = start_quiet_thread([this] { run(); });
}

StoreServer::~StoreServer() {
  stopping_ = true;
  const std::uint64_t one = 1;
  // Fails only if the counter is full, and then the thread wakes as well.
  [[maybe_unused]] const ssize_t written = write(wake_.get(), &one, sizeof(one));
  thread_.join();
}

bool StoreServer::wait_all_gone(milliseconds timeout) {
  const Deadline deadline(timeout);
  std::unique_lock lock(mutex_);
  const auto gone = [this] { return present_ == 0; };
  if (deadline.at()) return changed_.wait_until(lock, *deadline.at(), gone);
  changed_.wait(lock, gone);
  return true;
}

void StoreServer::run() {
  try {
    while (!stopping_) round();
  } catch (const std::exception& e) {
    say(fmt::format("[store] failed: {}", e.what()));
  }
  // Every rank that is still there sees the connection end.
  for (Connection& connection : connections_) {
    if (connection.session) job_.remove(*connection.session, kNoGoodbye);
  }
  connections_.clear();
  listening_ = Fd();
  publish();
}

void StoreServer::round() {
  const auto now = Deadline::Clock::now();
  supervise(now);
  sweep(now);
  publish();
  std::vector<pollfd> polled;
  polled.push_back({wake_.get(), POLLIN, 0});
  polled.push_back({now >= accept_again_ ? listening_.get() : -1, POLLIN, 0});
  for (const Connection& c : connections_) {
    const bool writes = c.session && !c.session->output().empty();
    polled.push_back({c.socket.get(), static_cast<short>(POLLIN | (writes ? POLLOUT : 0)), 0});
  }
  if (poll(polled.data(), polled.size(), poll_timeout(now)) < 0) {
    SG_CHECK(errno == EINTR, "poll: {}", error_text(errno));
    return;
  }
  const auto later = Deadline::Clock::now();
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    if (polled[i + 2].revents & ~POLLOUT) receive(connections_[i], later);
  }
  if (polled[1].revents) accept_all(later);  // last: it changes connections_
}

void StoreServer::supervise(Time now) {
  if (job_.ready() || job_.failure()) return;
  const auto missing = [this] {
    return fmt::format("{} of {}", ranks_text(job_.missing()), job_.identity().world_size);
  };
  if (options_.report_interval > milliseconds(0) && now >= next_report_) {
    const auto waited = std::chrono::duration_cast<milliseconds>(next_report_ - started_);
    say(fmt::format("[store] waiting for {} ({})", missing(), seconds_text(waited)));
    next_report_ += options_.report_interval;
  }
  if (options_.join_deadline > milliseconds(0) && now >= started_ + options_.join_deadline) {
    const std::string text =
        fmt::format("{} did not join within {}", missing(), seconds_text(options_.join_deadline));
    say("[store] " + text);
    job_.fail_job(job_.missing().front(), text);
  }
}

void StoreServer::sweep(Time now) {
  // By index: what ends here may give output to those before, which poll() then finds.
  std::size_t kept = 0;
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    if (!settle(connections_[i], now)) continue;
    if (kept != i) std::swap(connections_[kept], connections_[i]);
    ++kept;
  }
  connections_.resize(kept);
}

void StoreServer::publish() {
  {
    const std::lock_guard lock(mutex_);
    if (present_ == job_.present()) return;
    present_ = job_.present();
  }
  changed_.notify_all();
}

int StoreServer::poll_timeout(Time now) const {
  std::optional<Time> due;
  const auto consider = [&](Time at) { due = due ? std::min(*due, at) : at; };
  for (const Connection& c : connections_) {
    if (!c.session) consider(c.ends);
    if (!c.session) continue;
    if (const auto at = c.session->due(options_.handshake_deadline)) consider(*at);
    if (c.session->closing()) consider(now);
  }
  if (now < accept_again_) consider(accept_again_);
  if (!job_.ready() && !job_.failure()) {
    if (options_.join_deadline > milliseconds(0)) consider(started_ + options_.join_deadline);
    if (options_.report_interval > milliseconds(0)) consider(next_report_);
  }
  if (!due) return -1;
  const auto left = std::chrono::ceil<milliseconds>(*due - now).count();
  return static_cast<int>(std::clamp<long long>(left, 0, INT_MAX));
}

void StoreServer::say(const std::string& text) const {
  if (options_.say) return options_.say(text);
  say_error("{}\n", text);
}

}  // namespace sg::dist
