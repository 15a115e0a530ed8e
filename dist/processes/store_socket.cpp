#include "dist/processes/store_socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>

#include "core/check.h"

namespace sg::dist::store {
namespace {

using std::chrono::milliseconds;
using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

// The addresses of a name; none with `why` if it has none (yet: names come up late in clusters).
Addresses resolve(const std::string& address, int port, int flags, std::string& why) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const std::string service = std::to_string(port);
  const int error =
      getaddrinfo(address.empty() ? nullptr : address.c_str(), service.c_str(), &hints, &found);
  if (error != 0) {
    why = error == EAI_SYSTEM ? error_text(errno) : gai_strerror(error);
    found = nullptr;
  }
  return Addresses(found, &freeaddrinfo);
}

struct Name {
  std::string host, port;
};

Name name_of(int fd, int (*which)(int, sockaddr*, socklen_t*)) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  std::array<char, NI_MAXHOST> host{};
  std::array<char, NI_MAXSERV> port{};
  auto* plain = reinterpret_cast<sockaddr*>(&address);
  if (which(fd, plain, &size) != 0 ||
      getnameinfo(plain, size, host.data(), host.size(), port.data(), port.size(),
                  NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return {"an unknown address", "0"};
  }
  return {host.data(), port.data()};
}

// The kernel may give a connecting socket the very port that it asks for, and connect it to itself:
// that looks like success, and holds the port against the store that is about to start.
bool connected_to_itself(int fd) {
  const Name own = name_of(fd, getsockname);
  const Name peer = name_of(fd, getpeername);
  return own.port == peer.port && own.host == peer.host;
}

// 0 or an errno.
int connect_one(int fd, const addrinfo& to, const Deadline& deadline) {
  if (connect(fd, to.ai_addr, to.ai_addrlen) != 0 && errno != EINPROGRESS) return errno;
  if (!wait_for(fd, POLLOUT, deadline)) return ETIMEDOUT;
  int error = 0;
  socklen_t size = sizeof(error);
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error == 0 && connected_to_itself(fd)) return ECONNREFUSED;
  return error;
}

void set_int(int fd, int level, int name, int value) {
  setsockopt(fd, level, name, &value, sizeof(value));
}

}  // namespace

std::string endpoint_text(const std::string& address, int port) {
  const bool v6 = address.find(':') != std::string::npos;
  return fmt::format("{}{}{}:{}", v6 ? "[" : "", address, v6 ? "]" : "", port);
}

std::string peer_name(int fd) {
  const Name name = name_of(fd, getpeername);
  return endpoint_text(name.host, std::stoi(name.port));
}

std::string own_address(int fd) { return name_of(fd, getsockname).host; }

int own_port(int fd) { return std::stoi(name_of(fd, getsockname).port); }

Fd listen_on(const std::string& address, int port) {
  const std::string where = endpoint_text(address, port);
  SG_CHECK(port >= 0 && port <= 65535, "[store] port {}; expected 0 to 65535", port);
  std::string why;
  int error = 0;
  const Addresses found = resolve(address, port, AI_PASSIVE, why);
  for (const addrinfo* a = found.get(); a; a = a->ai_next) {
    Fd socket(::socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (socket.open()) {
      set_int(socket.get(), SOL_SOCKET, SO_REUSEADDR, 1);
      if (a->ai_family == AF_INET6) set_int(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, 0);
    }
    if (socket.open() && bind(socket.get(), a->ai_addr, a->ai_addrlen) == 0 &&
        listen(socket.get(), SOMAXCONN) == 0) {
      return socket;
    }
    error = errno;
    why = error_text(error);
  }
  const char* mend = "; give the address of the host of rank 0 (--master-addr, MASTER_ADDR)";
  if (error == EADDRINUSE || error == EACCES) {
    mend = "; choose another with --master-port or SHARDGRAD_PORT";
  }
  sg::fail("[store] cannot listen on {}: {}{}", where, why, mend);
}

Fd adopt_listening(int fd) {
  int listening = 0;
  socklen_t size = sizeof(listening);
  SG_CHECK(
      getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening == 1,
      "[store] file descriptor {} was handed in as the store's listening socket, but it is none",
      fd);
  Fd socket(fd);  // owned only from here on: it may be somebody else's
  fcntl(fd, F_SETFD, fcntl(fd, F_GETFD) | FD_CLOEXEC);
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  return socket;
}

void set_connection_options(int fd) {
  set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  // Without these a host that lost its power is waited for until somebody sends it something.
  set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, 10);
  set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
  set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 30'000);  // ms
}

Fd connect_to(const std::string& address, int port, const Deadline& deadline, std::string& why) {
  const Addresses found = resolve(address, port, 0, why);
  for (const addrinfo* a = found.get(); a; a = a->ai_next) {
    Fd socket(::socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    // A silent address must not take the time of the others.
    const Deadline own(std::max(deadline.left(milliseconds(10'000)), milliseconds(1)));
    const int error = socket.open() ? connect_one(socket.get(), *a, own) : errno;
    if (error == 0) {
      set_connection_options(socket.get());
      return socket;
    }
    why = error_text(error);
  }
  return Fd();
}

}  // namespace sg::dist::store
