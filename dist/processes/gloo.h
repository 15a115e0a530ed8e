// The transport between processes: Gloo's TCP connections, one a pair of ranks, and its send and
// receive on unbound buffers. Its own collectives are not used: their order of summation changes
// with the size.
//
// Every collective sends each peer a header of fixed size first, which names what it is, as Gloo
// itself would write past a receiver's count or end it. A few bytes travel inside the header, the
// rest follows when the receiver has found the header to be right.
//
// A peer's death ends waits in two ways: Gloo's connection breaks at once, and the store, which
// sees who died first, says who it was. The latter is what the error names.
#pragma once

#include <chrono>
#include <memory>

#include "dist/comm/transport.h"
#include "dist/processes/store_client.h"

namespace sg::dist {

class GlooTransport final : public Transport {
 public:
  /// Connects all ranks with each other, which is collective. `address`: this host's, by which the
  /// others reach it. `deadline`: of this and of every wait later, in which a rank that is missing
  /// is named; 0: none. The client must outlive it.
  GlooTransport(StoreClient& store, const std::string& address, int rank, int size,
                std::chrono::milliseconds deadline);
  ~GlooTransport() override;

  int rank() const override;
  int size() const override;
  void post(const Posting& posting) override;
  const char* view(const Posting& mine, int peer, std::int64_t begin, MarkPtr* written) override;
  std::int64_t piece(const Posting& posting) const override;
  void finish(const Posting& mine, const MarkPtr& read) override;
  void wait_released(const Posting& mine, std::vector<MarkPtr>* read) override;
  void leave() override;
  void poison(const std::string& cause) override;
  std::string failure() const override;
  int gone() const override;
  int at_work() const override;
  void entered(const Posting&) override {}  // the next message says how many there were
  std::string whereabouts() const override;

  /// Ends the connections; nothing that was posted is read any more.
  void close();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sg::dist
