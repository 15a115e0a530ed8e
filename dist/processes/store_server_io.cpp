// The server's connections: who comes, what they say, how they end.
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <string_view>

#include "core/check.h"
#include "dist/processes/store_server.h"

namespace sg::dist {

using namespace store;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds kAcceptPause{100};
constexpr int kAcceptedAtOnce = 64;    // the ranks are not to wait for a flood
constexpr int kMostRefusalsSaid = 20;  // a port scanner must not fill the log

}  // namespace

void StoreServer::accept_all(Time now) {
  for (int n = 0; n < kAcceptedAtOnce; ++n) {
    Fd socket(accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket.open()) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) return;
      // No file descriptor or memory for it: poll() would report it again at once.
      make_room();
      accept_again_ = now + kAcceptPause;
      return;
    }
    if (connections_.size() >= max_connections_ && !make_room()) continue;
    set_connection_options(socket.get());
    const std::string peer = peer_name(socket.get());
    auto session = std::make_unique<Session>(job_, peer, random_nonce(), now);
    connections_.push_back(
        {std::move(socket), std::move(session), {}, peer.substr(0, peer.rfind(':'))});
  }
}

// The oldest of the address that has most: a flood from one host is not to drive out the ranks of
// another that are on their way in.
bool StoreServer::make_room() {
  const auto stranger = [](const Connection& c) { return !c.session || !c.session->joined(); };
  std::map<std::string_view, std::size_t> counts;
  for (const Connection& c : connections_)
    if (stranger(c)) ++counts[c.host];
  if (counts.empty()) return false;
  const auto most =
      std::max_element(counts.begin(), counts.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  connections_.erase(
      std::find_if(connections_.begin(), connections_.end(),
                   [&](const Connection& c) { return stranger(c) && c.host == most->first; }));
  return true;
}

void StoreServer::receive(Connection& c, Time now) {
  std::array<char, 65536> chunk;
  const std::size_t most = c.session ? std::min(c.session->wants(), chunk.size()) : chunk.size();
  if (most == 0) return;
  const ssize_t n = recv(c.socket.get(), chunk.data(), most, 0);
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

bool StoreServer::settle(Connection& c, Time now) {
  if (!c.session) return now < c.ends;
  Session& session = *c.session;
  // If it was this process that stood still, the rest is here already.
  if (session.late(now, options_.handshake_deadline)) receive(c, now);
  if (session.late(now, options_.handshake_deadline)) {
    const std::string limit = seconds_text(options_.handshake_deadline);
    session.close(session.joined() ? "its message stayed incomplete for " + limit
                                   : "it had not proven itself and joined after " + limit);
  }
  std::string& output = session.output();
  std::size_t sent = 0;
  while (sent < output.size()) {
    const ssize_t n =
        send(c.socket.get(), output.data() + sent, output.size() - sent, MSG_NOSIGNAL);
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
  shutdown(c.socket.get(), SHUT_WR);
  job_.remove(session, session.reason());
  c.session.reset();
  c.ends = now + options_.handshake_deadline;
  return true;
}

void StoreServer::say_refused(const Session& session) {
  // Counted apart: noise at the port must not hide that a rank came with a wrong token.
  int& said = session.spoke_well() ? rank_refusals_said_ : refusals_said_;
  if (session.reason() == kNoGoodbye || session.reason() == kTooEarly) return;
  if (said == kMostRefusalsSaid) return;
  ++said;
  say(fmt::format("[store] refused {}: {}{}", session.peer(), session.reason(),
                  said == kMostRefusalsSaid ? " (further ones are not told)" : ""));
}

}  // namespace sg::dist
