// From the gradients of single parameters to summed units: partial -> where the plan's gradients
// rest.
//
// Gradients are written straight into a flat partial unit; those of bf16 parameters are converted
// into it, as all sums, over micro-batches and over ranks, are of f32. A unit whose gradients have
// all arrived is folded onto the accumulated gradient: added locally where gradients rest as
// `partial`, reduce-scattered where they rest as `shard`. Collectives are issued in one order,
// fixed by the dry run and the same on every rank: a unit that is ready early waits its turn, and
// units that the graph did not reach come last, as zeros.
#pragma once

#include <memory>
#include <vector>

#include "autograd/source.h"
#include "dist/comm/comm.h"
#include "dist/unit.h"

namespace sg::dist {

class GradReducer {
 public:
  GradReducer(Comm& comm, const Plan& plan, std::vector<std::unique_ptr<Unit>>& units);

  /// The order in which units become final in backward; the same on every rank.
  void set_order(std::vector<int> order);
  const std::vector<int>& order() const { return order_; }

  /// Before the backward of micro-batch `micro`; with `last`, partial gradients at rest start their
  /// reduction early.
  void start(int micro, bool last);
  /// After it: parameters that were not used get zeros, all units are folded.
  void finish();
  /// Gradients that arrive from here on belong to no backward of the engine.
  void stop() { active_ = false; }

  /// Where the gradient of a segment may be written; undefined if it must be added to what is
  /// there.
  Tensor target(Unit& unit, int segment);
  void ready(Unit& unit, int segment, const Tensor& gradient);

  /// Waits for every reduction under way. What was posted may still be read by peers
  /// (Comm::quiesce).
  void wait();
  /// Starts partial -> shard of a unit at rest: in place, into this rank's slice.
  void start_reduction(Unit& unit);

  // Dry run: arrivals are only noted, in order of completion of their units.
  void record(std::vector<int>* finals) { recorded_ = finals; }

 private:
  void open(Unit& unit);
  Tensor place(Unit& unit, int segment);
  void arrive(Unit& unit, int segment);
  void issue();
  void fold(Unit& unit);
  void free_oldest();

  Comm& comm_;
  const Plan& plan_;
  std::vector<std::unique_ptr<Unit>>& units_;
  std::vector<int> order_;
  std::size_t issued_ = 0;        // units of order_ that are folded in this backward
  std::vector<Unit*> in_flight_;  // partial units that are being reduced, oldest first
  int micro_ = 0;
  bool last_ = false;
  bool active_ = false;  // between start() and finish()
  std::vector<int>* recorded_ = nullptr;
};

/// The GradSink of one parameter.
class SegmentSink final : public GradSink {
 public:
  SegmentSink(std::shared_ptr<GradReducer> reducer, Unit& unit, int segment)
      : reducer_(std::move(reducer)), unit_(unit), segment_(segment) {}
  Tensor target(const VarImpl&) override { return reducer_->target(unit_, segment_); }
  void ready(VarImpl&, const Tensor& gradient) override {
    reducer_->ready(unit_, segment_, gradient);
  }

 private:
  std::shared_ptr<GradReducer> reducer_;
  Unit& unit_;
  int segment_;
};

}  // namespace sg::dist
