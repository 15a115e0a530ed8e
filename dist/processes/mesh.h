// Gloo's connections, one a pair of ranks. What its own rendezvous does, but so that it can be
// ended from outside: a rank that dies while others connect to it is not waited for until the
// deadline.
#pragma once

#include <gloo/context.h>
#include <gloo/rendezvous/store.h>

#include <chrono>
#include <string>

namespace sg::dist {

class Mesh final : public ::gloo::Context {
 public:
  /// Listens at `address`. closeConnections() works from here on, on any thread.
  Mesh(const std::string& address, int rank, int size, std::chrono::milliseconds timeout);
  /// Connects all pairs, which is collective: each rank leaves its addresses in the store. Returns
  /// or throws soon after closeConnections().
  void connect(::gloo::rendezvous::Store& store);
};

}  // namespace sg::dist
