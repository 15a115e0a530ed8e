// The moments `forward` and `backward`.
#include "core/cuda/cuda.h"
#include "dist/arrows.h"
#include "dist/engine.h"

namespace sg::dist {

Var Engine::forward(const Var& input) {
  return forward([this](std::span<const Var> x) { return (*module_)(x[0]); },
                 std::span<const Var>(&input, 1));
}

Var Engine::forward(const Function& fn, std::span<const Var> inputs) {
  Rank& rank = current_rank();
  check_whole("forward");
  const Scoped account(current_rank().account, account_);
  if (!grad_enabled()) {
    const Scoped phase(rank.phase, Phase::evaluation);
    if (!dry_evaluation_)
      dry_evaluation_ = run_dry(fn, inputs, units_, *prefetcher_, *reducer_, sources_);
    return pass(fn, inputs, dry_evaluation_->forward);
  }
  if (!dry_) {
    dry_ = run_dry(fn, inputs, units_, *prefetcher_, *reducer_, sources_);
    reducer_->set_order(agreed(dry_->finals));
  }
  enter_micro_batch(inputs);
  return pass(fn, inputs, dry_->forward);
}

// Random numbers are keyed by the step and the sample's place in the global batch: micro-batch a of
// rank r is slice a N + r.
void Engine::enter_micro_batch(std::span<const Var> inputs) {
  StepState& state = current_rank().state;
  const std::int64_t samples = inputs.empty() || inputs[0].shape().empty() ? 1 : inputs[0].size(0);
  state.step = steps_;
  state.first_sample = (std::int64_t{micro_} * comm_.size() + comm_.rank()) * samples;
}

// Nothing stays gathered when a forward ends: backward gathers again what it wants.
Var Engine::pass(const Function& fn, std::span<const Var> inputs, const std::vector<int>& order) {
  Prefetcher::Pass pass(*prefetcher_, &order);
  Var output = fn(inputs);
  pass.end();
  return output;
}

// Ranks may reach different parameters, but their collectives come in one order: rank 0's.
std::vector<int> Engine::agreed(const std::vector<int>& order) {
  const Scoped phase(current_rank().phase, Phase::inspection);  // once, not a part of any step
  const std::vector<std::uint64_t> mine(order.begin(), order.end());
  const std::vector<std::uint64_t> all = exchange(comm_, "control", mine);
  return {all.begin(), all.begin() + static_cast<std::ptrdiff_t>(order.size())};
}

void Engine::check_whole(const char* where) const {
  SG_CHECK(!broken_,
           "[{}] an earlier backward or step of this engine failed midway, so its gradients are "
           "incomplete: "
           "make a new engine",
           where);
}

void Engine::check_backward() const {
  check_whole("backward");
  SG_CHECK(micro_ < options_.accumulate,
           "[backward] {} micro-batches are accumulated already; call step() first", micro_);
}

void Engine::backward(const Var& loss) {
  check_backward();
  const Scoped account(current_rank().account, account_);
  SG_CHECK(dry_.has_value(), "[backward] no forward of this engine came before");
  SG_CHECK(numel(loss.shape()) == 1, "[backward] the loss must be one element, got shape {}",
           loss.shape());
  begin_backward();
  broken_ = true;
  backward_pass(loss);
  broken_ = false;
  end_backward(loss.value());
}

void Engine::begin_backward() {
  if (micro_ > 0) return;
  comm_.quiesce();  // peers have read the last step's gradients, which are overwritten now
  reduced_ = false;
  losses_.clear();
}

void Engine::backward_pass(const Var& loss) {
  Prefetcher::Pass pass(*prefetcher_, &dry_->backward);
  reducer_->start(micro_, micro_ + 1 == options_.accumulate);
  loss.backward();
  reducer_->finish();
  pass.end();
}

// The loss is read when somebody asks for it: a GPU has yet to compute it.
void Engine::end_backward(const Tensor& loss) {
  // A view would keep all that it is a view of.
  losses_.push_back(loss.storage()->bytes() == size_of(loss.dtype()) ? loss : loss.clone());
  ++micro_;
}

std::string Engine::why_no_graphs() const {
  if (!options_.graphs) return "they are switched off";
  if (!units_.front()->rest.is_cuda()) return "the parameters are not on a GPU";
  if (comm_.size() > 1) return "ranks wait for each other on the CPU";
  if (comm_.has_devices()) return "NCCL's collectives are watched from the CPU";
  return "";
}

void Engine::replay(const cuda::Graph& graph, std::span<const Var> inputs, const Tensor& loss,
                    const Tensor& state) {
  enter_micro_batch(inputs);
  begin_backward();
  const StepState& now = current_rank().state;
  cuda::store(state.device(), state.raw_data(), std::as_bytes(std::span(&now, 1)));
  graph.launch();
  end_backward(loss.clone());  // the next replay overwrites it
}

MicroBatch Engine::micro_batch(Function loss) { return MicroBatch(*this, std::move(loss)); }

}  // namespace sg::dist
