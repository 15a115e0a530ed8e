#include "dist/micro_batch.h"

#include <algorithm>

#include "core/cuda/cuda.h"
#include "dist/engine.h"

namespace sg::dist {
namespace {

// Shapes that change all the time are not worth a graph each, which keeps its memory.
constexpr std::size_t kVariants = 16;

bool same_form(const Tensor& a, const Var& b) {
  return a.shape() == b.shape() && a.strides() == b.value().strides() && a.dtype() == b.dtype() &&
         a.device() == b.value().device();
}

}  // namespace

MicroBatch::Variant* MicroBatch::find(std::span<const Var> inputs, const Form& form) {
  for (const auto& v : variants_)
    if (v->form == form &&
        std::equal(v->inputs.begin(), v->inputs.end(), inputs.begin(), inputs.end(), same_form))
      return v.get();
  return nullptr;
}

void MicroBatch::operator()(std::span<const Var> inputs) {
  // (The copy that a graph reads has the strides of what is dense.)
  const auto on_gpu = [](const Var& x) {
    return x.value().is_cuda() && x.value().is_dense() && !x.requires_grad();
  };
  if (!engine_.why_no_graphs().empty() || !grad_enabled() ||
      !std::all_of(inputs.begin(), inputs.end(), on_gpu))
    return engine_.backward(engine_.forward(loss_, inputs));

  const Form form{.first = engine_.micro_ == 0,
                  .last = engine_.micro_ + 1 == engine_.options_.accumulate,
                  .modes = engine_.module().modes()};
  Variant* const variant = find(inputs, form);
  if (variant == nullptr) {
    // The first time makes what is made once: workspaces of libraries, the order of units.
    engine_.backward(engine_.forward(loss_, inputs));
    if (variants_.size() < kVariants) prepare(inputs, form);
    return;
  }
  engine_.check_backward();
  const Scoped account(current_rank().account, engine_.account_);
  for (std::size_t i = 0; i < inputs.size(); ++i) variant->inputs[i].copy_from(inputs[i].value());
  if (variant->graph == nullptr) capture(*variant);
  current_rank().ledger().book(*variant->rise);
  engine_.account_->book(*variant->rise);
  engine_.replay(*variant->graph, inputs, variant->loss, variant->state);
}

void MicroBatch::prepare(std::span<const Var> inputs, const Form& form) {
  const Scoped kind(current_rank().kind, Kind::buffers);
  auto variant = std::make_unique<Variant>();
  variant->form = form;
  for (const Var& x : inputs) variant->inputs.push_back(x.value().clone());
  variant->loss = engine_.losses_.back().clone();
  variant->state = Tensor::empty({sizeof(StepState)}, DType::u8, variant->loss.device());
  variants_.push_back(std::move(variant));
}

void MicroBatch::capture(Variant& variant) {
  Rank& rank = current_rank();
  const std::vector<Var> inputs(variant.inputs.begin(), variant.inputs.end());
  const Scoped state(rank.state, rank.state);
  const Scoped rise(rank.rise, variant.rise);
  rank.state.replayed = static_cast<const StepState*>(variant.state.raw_data());
  engine_.broken_ = true;
  engine_.reducer_->wait();  // what is in flight from before would stay with the graph
  cuda::Capture capture(variant.loss.device());
  {
    const Var loss = engine_.pass(loss_, inputs, engine_.dry_->forward);
    variant.loss.copy_from(loss.value());
    engine_.backward_pass(loss);
    engine_.reducer_->wait();  // what is in flight holds memory of the capture
  }
  variant.graph = capture.end();
  engine_.broken_ = false;
}

}  // namespace sg::dist
