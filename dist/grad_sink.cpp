#include "dist/grad_sink.h"

#include <cstring>

#include "core/ops.h"
#include "dist/arrows.h"

namespace sg::dist {
namespace {

// At most so many partial units are in flight, then backward waits for the oldest.
constexpr std::size_t kInFlight = 2;

}  // namespace

GradReducer::GradReducer(Comm& comm, const Plan& plan, std::vector<std::unique_ptr<Unit>>& units)
    : comm_(comm), plan_(plan), units_(units) {}

void GradReducer::set_order(std::vector<int> order) { order_ = std::move(order); }

void GradReducer::start(int micro, bool last) {
  micro_ = micro;
  last_ = last;
  active_ = true;
  issued_ = 0;
  for (auto& unit : units_) {
    unit->arrived.assign(unit->segments.size(), false);
    unit->missing = static_cast<int>(unit->segments.size());
  }
}

// Makes the buffer that this backward's gradients of a unit are written into: the accumulated
// gradient itself for the first micro-batch of gradients that rest as `partial`, a partial unit in
// flight otherwise.
void GradReducer::open(Unit& unit) {
  // The previous micro-batch's partial of this unit may still be on its way.
  while (!in_flight_.empty() && unit.reduction.pending()) free_oldest();
  if (unit.partial.defined()) return;
  if (plan_.grad.layout == Layout::partial && micro_ == 0) {
    unit.partial = unit.accumulated;
  } else {
    if (plan_.grad.layout != Layout::partial && in_flight_.size() >= kInFlight) free_oldest();
    Scoped kind(current_rank().kind, Kind::buffers);
    unit.partial = Tensor::empty({unit.padded}, unit.grad_dtype, unit.accumulated.device());
  }
  // Gaps and padding are zero: they are summed and normed like any other element.
  if (unit.partial.is_cuda()) return unit.partial.fill(0);  // one launch, not one a gap
  std::int64_t end = 0;
  const std::int64_t size = static_cast<std::int64_t>(size_of(unit.grad_dtype));
  char* data = static_cast<char*>(unit.partial.raw_data());
  const auto zero = [&](std::int64_t begin, std::int64_t stop) {
    if (stop > begin)
      std::memset(data + begin * size, 0, static_cast<std::size_t>((stop - begin) * size));
  };
  for (const Segment& s : unit.segments) {
    zero(end, s.offset);
    end = s.offset + s.length;
  }
  zero(end, unit.padded);
}

Tensor GradReducer::target(Unit& unit, int segment) {
  // A gradient has its parameter's dtype; where sums have another, ready() converts it.
  const bool direct = recorded_ == nullptr && unit.dtype == unit.grad_dtype;
  return direct ? place(unit, segment) : Tensor();
}

Tensor GradReducer::place(Unit& unit, int segment) {
  SG_CHECK(
      active_,
      "[backward] {} got a gradient outside of engine.backward(); call engine.backward(loss), not "
      "loss.backward()",
      unit.segments[static_cast<std::size_t>(segment)].name());
  open(unit);
  return unit.segments[static_cast<std::size_t>(segment)].view_of(unit.partial);
}

void GradReducer::ready(Unit& unit, int segment, const Tensor& gradient) {
  if (recorded_ == nullptr) {
    const Tensor to = place(unit, segment);
    const bool there = gradient.storage() == to.storage() && gradient.offset() == to.offset();
    if (!there) to.copy_from(gradient);
  }
  arrive(unit, segment);
}

void GradReducer::arrive(Unit& unit, int segment) {
  SG_CHECK(!unit.arrived[static_cast<std::size_t>(segment)],
           "[backward] {} got two gradients in one backward; call engine.backward() once a "
           "micro-batch",
           unit.segments[static_cast<std::size_t>(segment)].name());
  unit.arrived[static_cast<std::size_t>(segment)] = true;
  if (--unit.missing > 0) return;
  if (recorded_ != nullptr) {
    recorded_->push_back(unit.index);
    return;
  }
  issue();
}

void GradReducer::issue() {
  while (issued_ < order_.size()) {
    Unit& unit = *units_[static_cast<std::size_t>(order_[issued_])];
    if (unit.missing > 0) return;  // its turn first, on every rank
    ++issued_;
    fold(unit);
  }
}

void GradReducer::fold(Unit& unit) {
  open(unit);  // a unit without segments of its own size
  if (plan_.grad.layout == Layout::partial) {
    // A micro-batch's gradient is complete, and added once.
    if (micro_ > 0) ops::add_(unit.accumulated, unit.partial);
    unit.partial = {};
    if (last_) start_reduction(unit);
  } else {
    unit.reduction =
        start_reduce_scatter(comm_, unit.label(), unit.partial, unit.accumulated, micro_ > 0);
    in_flight_.push_back(&unit);
  }
}

void GradReducer::start_reduction(Unit& unit) {
  unit.reduction =
      start_reduce_scatter(comm_, unit.label(), unit.accumulated,
                           shard_of(unit.accumulated, comm_.rank(), comm_.size()), false);
}

void GradReducer::free_oldest() {
  Unit& oldest = *in_flight_.front();
  oldest.reduction.wait_readers();  // peers read it: its bytes must not be reused before
  oldest.reduction = {};
  oldest.partial = {};
  in_flight_.erase(in_flight_.begin());
}

void GradReducer::finish() {
  for (auto& unit : units_) {
    if (!unit->trainable) continue;
    for (std::size_t s = 0; s < unit->segments.size(); ++s) {
      if (unit->arrived[s]) continue;
      place(*unit, static_cast<int>(s)).fill(0);
      arrive(*unit, static_cast<int>(s));
    }
  }
  issue();
  stop();
}

void GradReducer::wait() {
  while (!in_flight_.empty()) free_oldest();
  for (auto& unit : units_) {
    unit->reduction.get();
    unit->reduction = {};
  }
}

}  // namespace sg::dist
