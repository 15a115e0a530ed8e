#include "dist/processes/store_server.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdio>

#include "core/check.h"

namespace sg::dist {

using std::chrono::milliseconds;

namespace {

const char* const kNoGoodbye = "its connection to the store ended without a goodbye";
constexpr milliseconds kAcceptPause{100};
constexpr int kMostRefusalsSaid = 20;  // a port scanner must not fill the log

}  // namespace

StoreServer::StoreServer(JobIdentity identity, Options options)
    : options_(std::move(options)),
      listening_(options_.listening_socket >= 0 ? adopt_listening(options_.listening_socket)
                                                : listen_on(options_.address, options_.port)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      port_(own_port(listening_.fd())),
      max_connections_(4 * static_cast<std::size_t>(std::max(identity.world_size, 1)) + 64),
      job_(std::move(identity)),
      started_(Deadline::Clock::now()),
      next_report_(started_ + options_.report_interval) {
  SG_CHECK(wake_, "[store] no eventfd: {}", error_text(errno));
  thread_ = start_quiet_thread([this] { run(); });
}

StoreServer::~StoreServer() {
  stopping_ = true;
  const std::uint64_t one = 1;
  // Fails only if the counter is full, and then the thread wakes as well.
  [[maybe_unused]] const ssize_t written = write(wake_.fd(), &one, sizeof(one));
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
  listening_ = Socket();
  publish();
}

void StoreServer::round() {
  const auto now = Deadline::Clock::now();
  supervise(now);
  sweep(now);
  publish();
  std::vector<pollfd> polled;
  polled.push_back({wake_.fd(), POLLIN, 0});
  polled.push_back({now >= accept_again_ ? listening_.fd() : -1, POLLIN, 0});
  for (const Connection& c : connections_) {
    const bool writes = c.session && !c.session->output().empty();
    polled.push_back({c.socket.fd(), static_cast<short>(POLLIN | (writes ? POLLOUT : 0)), 0});
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
  if (options_.join_deadline > milliseconds(0) && now >= started_ + options_.join_deadline) {
    const std::string text =
        fmt::format("{} did not join within {}", missing(), seconds_text(options_.join_deadline));
    say("[store] " + text);
    return job_.fail_job(job_.missing().front(), text);
  }
  if (options_.report_interval <= milliseconds(0) || now < next_report_) return;
  const auto waited = std::chrono::duration_cast<milliseconds>(next_report_ - started_);
  say(fmt::format("[store] waiting for {} ({})", missing(), seconds_text(waited)));
  next_report_ += options_.report_interval;
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

bool StoreServer::settle(Connection& c, Time now) {
  if (!c.session) return now < c.ends;
  Session& session = *c.session;
  if (session.late(now, options_.handshake_deadline)) {
    const std::string limit = seconds_text(options_.handshake_deadline);
    session.close(session.joined() ? "its message stayed incomplete for " + limit
                                   : "it had not proven itself and joined after " + limit);
  }
  std::string& output = session.output();
  std::size_t sent = 0;
  while (sent < output.size()) {
    const ssize_t n = send(c.socket.fd(), output.data() + sent, output.size() - sent, MSG_NOSIGNAL);
    if (n > 0) {
      sent += static_cast<std::size_t>(n);
    } else if (errno != EINTR) {
      if (errno != EAGAIN && errno != EWOULDBLOCK) session.close(kNoGoodbye);
      break;
    }
  }
  output.erase(0, sent);
  if (!session.closing()) return true;
  // Said goodbye to, but not closed at once: bytes that come unread would make the kernel take back
  // (RST) the refusal that was just sent.
  if (!session.joined()) say_refused(session);
  shutdown(c.socket.fd(), SHUT_WR);
  job_.remove(session, session.reason());
  c.session.reset();
  c.ends = now + options_.handshake_deadline;
  return true;
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

void StoreServer::accept_all(Time now) {
  for (;;) {
    Socket socket(accept4(listening_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) return;
      // No file descriptor or memory for it: poll() would report it again at once.
      make_room();
      accept_again_ = now + kAcceptPause;
      return;
    }
    if (connections_.size() >= max_connections_ && !make_room()) continue;
    set_connection_options(socket.fd());
    auto session = std::make_unique<Session>(job_, peer_name(socket.fd()), random_nonce(), now);
    connections_.push_back({std::move(socket), std::move(session), {}});
  }
}

bool StoreServer::make_room() {
  const auto oldest =
      std::find_if(connections_.begin(), connections_.end(),
                   [](const Connection& c) { return !c.session || !c.session->joined(); });
  if (oldest == connections_.end()) return false;
  connections_.erase(oldest);
  return true;
}

void StoreServer::receive(Connection& c, Time now) {
  std::array<char, 65536> chunk;
  const std::size_t most = c.session ? std::min(c.session->wants(), chunk.size()) : chunk.size();
  if (most == 0) return;
  const ssize_t n = recv(c.socket.fd(), chunk.data(), most, 0);
  if (n > 0) {
    if (c.session) c.session->feed({chunk.data(), static_cast<std::size_t>(n)}, now);
    return;
  }
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return;
  if (c.session) {
    c.session->output().clear();
    c.session->close(kNoGoodbye);
  } else {
    c.ends = now;
  }
}

void StoreServer::say(const std::string& text) const {
  if (options_.say) return options_.say(text);
  fmt::print(stderr, "{}\n", text);
}

void StoreServer::say_refused(const Session& session) {
  if (session.reason() == kNoGoodbye || refusals_said_ == kMostRefusalsSaid) return;
  ++refusals_said_;
  say(fmt::format("[store] refused {}: {}{}", session.peer(), session.reason(),
                  refusals_said_ == kMostRefusalsSaid ? " (further ones are not told)" : ""));
}

}  // namespace sg::dist
