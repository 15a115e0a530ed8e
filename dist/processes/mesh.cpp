#include "dist/processes/mesh.h"

#include <gloo/transport/address.h>
#include <gloo/transport/context.h>
#include <gloo/transport/pair.h>

#include <vector>

#include "core/check.h"

namespace sg::dist {
namespace {

std::string key_of(int rank) { return fmt::format("gloo/{}", rank); }

}  // namespace

Mesh::Mesh(std::shared_ptr<::gloo::transport::Device> device, int rank_, int size_,
           std::chrono::milliseconds timeout)
    : Context(rank_, size_) {
  setTimeout(timeout);
  device_ = std::move(device);
  transportContext_ = device_->createContext(rank, size);
  transportContext_->setTimeout(timeout);
  for (int peer = 0; peer < size; ++peer)
    if (peer != rank) transportContext_->createPair(peer);
}

void Mesh::connect(StoreClient& store, std::chrono::milliseconds deadline) {
  std::vector<char> mine;  // an address for each peer, in their order
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank) continue;
    const std::vector<char> address = getPair(peer)->address().bytes();
    mine.insert(mine.end(), address.begin(), address.end());
  }
  store.set(key_of(rank), mine);
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank) continue;
    const std::vector<char> theirs = store.get(key_of(peer), deadline);
    SG_CHECK(
        theirs.size() == mine.size(),
        "[launch] rank {} has {} bytes of addresses, rank {} {}; run the same build everywhere",
        peer, theirs.size(), rank, mine.size());
    const auto bytes = static_cast<std::ptrdiff_t>(theirs.size()) / (size - 1);
    const auto begin = theirs.begin() + bytes * (rank > peer ? rank - 1 : rank);
    getPair(peer)->connect(std::vector<char>(begin, begin + bytes));
  }
}

}  // namespace sg::dist
