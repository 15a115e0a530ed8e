#include "autograd/checkpoint.h"

#include "autograd/segment.h"

namespace sg {
namespace {

thread_local std::shared_ptr<Segment> tls_segment;
thread_local bool tls_refilling = false;

}  // namespace

Segment::Segment(Function fn, std::span<const Var> inputs)
    : fn_(std::move(fn)), state_(current_rank().state) {
  // Inside another segment these are slots of that one: nested checkpoints recompute from the
  // outside in.
  for (const Var& input : inputs) {
    inputs_.emplace_back(input.value());
    input_requires_grad_.push_back(input.requires_grad());
  }
}

const std::shared_ptr<Segment>& Segment::current() { return tls_segment; }
bool Segment::refilling() { return tls_refilling; }

Var Segment::run(std::span<const Var> inputs) {
  Scoped segment(tls_segment, shared_from_this());
  return fn_(inputs);
}

int Segment::keep(const Tensor& tensor) {
  if (refilling_this_) {
    slots_.push_back(tensor);
    return -1;
  }
  // Run again inside an outer segment that is being refilled: this copy of the inner segment serves
  // nobody's backward.
  if (tls_refilling) return -1;
  return count_++;
}

void Segment::refill() {
  std::vector<Var> inputs;
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    // Values that do not come from a parameter have no history here: the first forward's nodes
    // carry the gradients.
    inputs.emplace_back(inputs_[i].get(), input_requires_grad_[i]);
  }
  slots_.clear();
  Scoped segment(tls_segment, shared_from_this());
  Scoped mode(tls_refilling, true);
  Scoped own(refilling_this_, true);
  Scoped state(current_rank().state, state_);
  const EnableGrad enable;  // ops decide by requires_grad() what they save
  fn_(inputs);
  SG_CHECK(static_cast<int>(slots_.size()) == count_,
           "[checkpoint] recomputation saved {} values, the first forward {}: the function must "
           "run the same ops both times",
           slots_.size(), count_);
  filled_ = true;
  inputs_.clear();
}

Tensor Segment::get(int slot) {
  if (!filled_) refill();
  return slots_[static_cast<std::size_t>(slot)];
}

void Segment::drop(int slot) {
  if (filled_) slots_[static_cast<std::size_t>(slot)] = {};
}

Var checkpoint(const std::function<Var(std::span<const Var>)>& fn, std::vector<Var> inputs) {
  if (!grad_enabled()) return fn(inputs);
  const auto segment = std::make_shared<Segment>(fn, inputs);
  return segment->run(inputs);
}

Var checkpoint(const std::function<Var(const Var&)>& fn, const Var& input) {
  return checkpoint([fn](std::span<const Var> inputs) { return fn(inputs[0]); },
                    std::vector<Var>{input});
}

bool recomputing() { return Segment::refilling(); }

}  // namespace sg
