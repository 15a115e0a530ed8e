// The moment `step`: reduce what is not reduced yet, clip, update what this rank owns, publish it
// to those that keep it.
#include <bit>
#include <cmath>
#include <utility>

#include "core/cuda/graph.h"
#include "core/fault.h"
#include "core/ops.h"
#include "dist/arrows.h"
#include "dist/engine.h"
#include "optim/clip.h"

namespace sg::dist {
namespace {

// This rank's shard of a flat tensor, which holds the whole unit or that shard.
Tensor own_shard(const Tensor& flat, const Unit& unit, const Comm& comm) {
  return flat.numel() == unit.padded ? shard_of(flat, comm.rank(), comm.size()) : flat;
}

// What tests of a failure ask for: of the first gradient that a rank holds, a rank above 0 owns
// the reduced value under zero2 and zero3 alone.
void spoil(std::vector<std::unique_ptr<Unit>>& units, bool nan) {
  for (auto& unit : units) {
    if (!unit->trainable) continue;
    if (nan) unit->accumulated.fill(NAN);
    if (!nan)
      return ops::add_(unit->accumulated.slice(0, 0, 1), Tensor::full({1}, 1, unit->grad_dtype));
  }
}

}  // namespace

bool Engine::step() {
  check_whole("step");
  if (micro_ < options_.accumulate) return false;
  loss_.check();  // of the step before, if nobody has asked
  const Scoped account(current_rank().account, account_);
  broken_ = true;
  using fault::Action;
  const Action fault = fault::at("step", {Action::skip, Action::nan, Action::wrong});
  if (fault == Action::skip) {
    broken_ = false;
    return false;
  }
  if (fault != Action::none) {
    reducer_->wait();  // a reduction that is still under way would read or overwrite the change
    spoil(units_, fault == Action::nan);
  }
  if (options_.debug) check_same_sequence(comm_);
  reduce();
  optim::StepValues values;
  values.step = steps_ + 1;
  values.grad_divisor = static_cast<double>(comm_.size()) * options_.accumulate;
  values.lr_factor = options_.schedule.factor(values.step);
  exchange_scalars(values);
  comm_.quiesce();  // peers have read this rank's parameters, which change now
  update(values);
  publish();
  loss_.taken();  // the update has seen it
  ++steps_;
  micro_ = 0;
  broken_ = false;
  return true;
}

// grad at rest -> reduced. Where the update wants the whole gradient, the shards are gathered again
// in place.
void Engine::reduce() {
  if (reduced_) return;
  reducer_->wait();
  if (plan_.reduced.layout == Layout::full) {
    comm_.quiesce();  // hazard: peers still sum from the partial gradients that the gather
                      // overwrites
    std::vector<Ready<Tensor>> gathers;
    for (auto& unit : units_)
      if (unit->trainable)
        gathers.push_back(start_all_gather(comm_, unit->label(),
                                           shard_of(unit->accumulated, comm_.rank(), comm_.size()),
                                           unit->accumulated));
    for (const auto& gather : gathers) gather.get();
  }
  reduced_ = true;
}

// One exchange a step: this rank's losses, its wish to stop and its part of the squared gradient
// norm. Everybody folds what everybody sent in the same order, so all ranks go on with the same
// bits.
void Engine::exchange_scalars(optim::StepValues& values) {
  const bool norm = wants_norm();
  if (!waits_for_values()) {
    loss_ = StepLoss(std::exchange(losses_, {}));
    stop_requested_ = stop_wanted_;
    grad_norm_.reset();
    return;
  }
  std::vector<std::uint64_t> mine;
  for (const Tensor& loss : losses_) mine.push_back(std::bit_cast<std::uint64_t>(loss.item()));
  mine.push_back(stop_wanted_ ? 1 : 0);
  if (norm) {
    ExactSum squares;
    for (auto& unit : units_) {
      if (!unit->trainable) continue;
      optim::add_squares(own_shard(unit->accumulated, *unit, comm_), values.grad_divisor, squares);
    }
    mine.insert(mine.end(), squares.words().begin(), squares.words().end());
  }
  const std::vector<std::uint64_t> all = exchange(comm_, "control", mine);
  const std::size_t width = mine.size(), ranks = static_cast<std::size_t>(comm_.size());
  double sum = 0;
  for (std::size_t a = 0; a < losses_.size(); ++a)
    for (std::size_t r = 0; r < ranks; ++r) sum += std::bit_cast<double>(all[r * width + a]);
  loss_ = StepLoss(sum / static_cast<double>(losses_.size() * ranks));
  ExactSum squares;
  stop_requested_ = false;
  for (std::size_t r = 0; r < ranks; ++r) {
    const std::uint64_t* words = &all[r * width + losses_.size()];
    stop_requested_ = stop_requested_ || words[0] != 0;
    if (norm) squares.merge_words({words + 1, ExactSum::kWords});
  }
  grad_norm_.reset();
  if (!norm) return;
  grad_norm_ = std::sqrt(squares.value());
  if (options_.clip_norm > 0)
    values.clip_scale = optim::clip_coefficient(*grad_norm_, options_.clip_norm);
}

void Engine::update(const optim::StepValues& values) {
  const auto for_each_trained = [&](auto&& f) {
    for (auto& unit : units_)
      if (unit->trainable) f(*unit);
  };
  std::vector<optim::Update*> updates;
  for_each_trained([&](Unit& unit) { updates.push_back(&*unit.update); });
  optim::Update::set(updates, values);
  const auto run = [&] {
    for_each_trained([](Unit& unit) { unit.update->run(part(unit.accumulated, unit)); });
  };
  // All units are one launch: the first step loads the kernels, the second captures them.
  const Device device = units_.front()->rest.device();
  if (SG_CUDA && options_.graphs && device.is_cuda() && steps_ > 0) {
    if (update_graph_ == nullptr) {
      cuda::Capture capture(device);
      run();
      update_graph_ = capture.end();
    }
    update_graph_->launch();
  } else {
    run();
  }
  for_each_trained([](Unit& unit) {
    ++unit.version;
    unit.rest.storage()->bump_version();
  });
}

// state -> param: where everybody keeps the whole parameter, the owners' slices go to everybody, in
// place.
void Engine::publish() {
  if (plan_.state.layout == plan_.param.layout) return;
  std::vector<Ready<Tensor>> gathers;
  for (auto& unit : units_)
    if (unit->trainable)
      gathers.push_back(start_all_gather(
          comm_, unit->label(), shard_of(unit->rest, comm_.rank(), comm_.size()), unit->rest));
  for (const auto& gather : gathers) gather.get();
}

}  // namespace sg::dist
