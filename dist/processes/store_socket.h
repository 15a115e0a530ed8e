// TCP sockets of the store: non-blocking, closed on exec, never a SIGPIPE; IPv4, IPv6 and names.
#pragma once

#include <string>

#include "dist/fd.h"
#include "dist/processes/store_io.h"

namespace sg::dist::store {

/// "10.0.0.1:29500", "[::1]:29500"
std::string endpoint_text(const std::string& address, int port);
std::string peer_name(int fd);    ///< "10.0.0.1:41234"
std::string own_address(int fd);  ///< "10.0.0.7"
int own_port(int fd);

/// A listening socket; an empty address is every address of this host. Errors name the address.
Fd listen_on(const std::string& address, int port);
/// Makes a listening socket that was handed in non-blocking and closed on exec. Error: it is none.
Fd adopt_listening(int fd);
/// Settings of a connection: small messages at once, and a peer whose host is gone is noticed.
void set_connection_options(int fd);
/// One attempt at each address of the name. No socket: `why` says the last one's error.
Fd connect_to(const std::string& address, int port, const Deadline& deadline, std::string& why);

}  // namespace sg::dist::store
