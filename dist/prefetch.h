// Who has which unit gathered, and which comes next.
//
// A stretch is a run of uses of one unit; it ends when another unit is used, or at the boundaries
// of forward and backward. In a stretch the unit is gathered once. While one unit is used the next
// of the recorded order is started, so at most three are alive: the one that the op in hand still
// holds, the one being read, and the next.
//
//   use(a)   a is gathered (or was prefetched); b, the next in order, is started
//   use(b)   hazard: a's storage may still be in the hands of the op that reads both; it dies with
//   the last handle use(c)   a misprediction (b was expected) drops b and gathers c on demand; the
//   order is never wrong, only slow
#pragma once

#include <memory>
#include <vector>

#include "autograd/source.h"
#include "dist/comm/comm.h"
#include "dist/unit.h"

namespace sg::dist {

class Prefetcher {
 public:
  /// Gathers are booked in `account` as well, whoever asks for them.
  Prefetcher(Comm& comm, std::vector<std::unique_ptr<Unit>>& units, std::shared_ptr<Ledger> account,
             bool enabled)
      : comm_(comm), units_(units), account_(std::move(account)), enabled_(enabled) {}

  /// The order of stretches to expect from here on, forward's or backward's, and the end of any
  /// stretch under way.
  void expect(const std::vector<int>* order);
  /// The full unit, gathered now unless it is at hand.
  std::shared_ptr<Storage> use(int unit);
  /// Starts gathering without waiting.
  void begin(int unit);
  /// Drops what is held; what was started is finished first. Before every change of parameters.
  void drop();

  /// Gathered storages know where they come from; set once the sources exist.
  void set_sources(std::vector<std::weak_ptr<Source>> sources) { sources_ = std::move(sources); }

  // Dry run: uses are recorded and answered by storages without bytes.
  void record(std::vector<int>* stretches) { recorded_ = stretches; }

 private:
  struct Gather {
    int unit = -1;
    Ready<Tensor> full;
  };
  Gather start(int unit);

  Comm& comm_;
  std::vector<std::unique_ptr<Unit>>& units_;
  const std::shared_ptr<Ledger> account_;
  const bool enabled_;
  std::vector<std::weak_ptr<Source>> sources_;
  Gather current_, next_;
  const std::vector<int>* order_ = nullptr;
  std::size_t position_ = 0;  // in order_, of the stretch after the current one
  std::vector<int>* recorded_ = nullptr;
};

}  // namespace sg::dist
