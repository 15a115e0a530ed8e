#include <utility>

#include "dist/comm/comm.h"
#include "dist/comm/threads.h"

namespace sg::dist {
namespace {

thread_local Comm* tls_comm = nullptr;

}  // namespace

Comm& current_comm() {
  if (tls_comm != nullptr) return *tls_comm;
  // A group of one; its world has no peers to share it with.
  thread_local ThreadWorld world(1, {});
  thread_local Comm alone(world.transport(0), Executor::inlined);
  return alone;
}

CommScope::CommScope(Comm& comm) : previous_(std::exchange(tls_comm, &comm)) {}
CommScope::~CommScope() { tls_comm = previous_; }

}  // namespace sg::dist
