// Who has which unit gathered, and which comes next.
//
// A pass is an engine's forward or backward. A stretch is a run of uses of one unit; it ends when
// another unit is used, or with the pass. In a stretch the unit is gathered once. While one unit is
// used the next of the recorded order is started, so at most three are alive: the one that the op
// in hand still holds, the one being read, and the next.
//
//   use(a)   a is gathered (or was prefetched); b, the next in order, is started.
//   use(b)   Hazard: a's storage may still be in the hands of the op that reads both; it dies with
//            the last handle.
//   use(c)   A misprediction (b was expected) drops b and gathers c on demand: the order is never
//            wrong, only slow.
//
// Outside of a pass (somebody looks at a parameter between steps) each use gathers for itself,
// nothing is kept, as the next step changes it, and the engine's account knows nothing of it.
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

  /// From here to end() or the end of the scope, whichever comes first.
  class Pass {
   public:
    /// `order`: of the stretches to expect; null: not known.
    Pass(Prefetcher& prefetcher, const std::vector<int>* order);
    /// Left by an exception, it waits for nothing: what was started ends before the next pass.
    ~Pass();
    void end();

   private:
    Prefetcher& prefetcher_;
  };
  /// The full unit, gathered now unless it is at hand.
  std::shared_ptr<Storage> use(int unit);
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
  std::shared_ptr<Storage> look_at(int unit);

  Comm& comm_;
  std::vector<std::unique_ptr<Unit>>& units_;
  const std::shared_ptr<Ledger> account_;
  const bool enabled_;
  std::vector<std::weak_ptr<Source>> sources_;
  bool in_pass_ = false;
  Gather current_, next_;
  const std::vector<int>* order_ = nullptr;
  std::size_t position_ = 0;  // in order_, of the stretch after the current one
  std::vector<int>* recorded_ = nullptr;
};

}  // namespace sg::dist
