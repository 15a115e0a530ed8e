#include "dist/cli/listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <memory>

namespace sg::cli {
namespace {

union Address {
  sockaddr any;
  sockaddr_in v4;
  sockaddr_in6 v6;
  sockaddr_storage storage;
};

[[noreturn]] void cannot_listen(const std::string& address, int port) {
  const int error = errno;
  if (error == EADDRINUSE)
    usage_error(
        "port {} of {} is in use; name another one by --master-port, or leave it out on one node "
        "for a free one",
        port, address);
  if (error == EADDRNOTAVAIL)
    usage_error(
        "--master-addr {} is no address of this machine, which is node 0; name one that is (`ip "
        "address` lists them)",
        address);
  if (error == EACCES)
    usage_error("port {} of {} is not permitted; name one above 1023 by --master-port", port,
                address);
  usage_error("cannot listen at port {} of {}: {}", port, address, std::strerror(error));
}

}  // namespace

Listener listen_at(const std::string& address, int port, bool every_interface) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(address.c_str(), nullptr, &hints, &found); error != 0)
    usage_error("--master-addr {}: {}; name an address of this machine, which is node 0", address,
                ::gai_strerror(error));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, ::freeaddrinfo);

  Address at{};
  std::memcpy(&at.storage, found->ai_addr, found->ai_addrlen);
  const bool v6 = at.any.sa_family == AF_INET6;
  if (v6) {
    at.v6.sin6_port = htons(static_cast<in_port_t>(port));
    if (every_interface) at.v6.sin6_addr = in6addr_any;
  } else {
    at.v4.sin_port = htons(static_cast<in_port_t>(port));
    if (every_interface) at.v4.sin_addr.s_addr = htonl(INADDR_ANY);
  }

  Listener listener;
  listener.socket = Fd(::socket(at.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!listener.socket.open()) fail_errno("cannot make a socket");
  const int fd = listener.socket.get(), yes = 1;
  // Connections of an earlier job that linger at a named port are no hindrance.
  if (port != 0) ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (::bind(fd, &at.any, found->ai_addrlen) != 0 || ::listen(fd, SOMAXCONN) != 0)
    cannot_listen(address, port);
  socklen_t size = sizeof at;
  if (::getsockname(fd, &at.any, &size) != 0) fail_errno("cannot ask a socket for its port");
  listener.port = ntohs(v6 ? at.v6.sin6_port : at.v4.sin_port);
  return listener;
}

}  // namespace sg::cli
