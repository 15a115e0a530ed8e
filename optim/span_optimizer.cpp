#include "optim/span_optimizer.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "optim/clip.h"

namespace sg::optim {
SpanOptimizer::SpanOptimizer(OptimizerPtr optimizer, std::vector<Parameter> parameters)
    : optimizer_(std::move(optimizer)), parameters_(std::move(parameters)) {
  const Scoped kind(current_rank().kind, Kind::optimizer);
  std::set<std::string_view> names;
  for (const Parameter& p : parameters_) {
    SG_CHECK(p.value.defined(), "[{}] parameter {} has no value", optimizer_->name(), p.name);
    SG_CHECK(names.insert(p.name).second, "[{}] two parameters are called {}", optimizer_->name(),
             p.name);
    SG_CHECK(is_floating(p.value.dtype()) && p.value.dtype() != DType::f16,
             "[{}] parameter {} is {}; parameters are f32, f64 or bf16, so keep a master copy",
             optimizer_->name(), p.name, describe(p.value));
    const DType dtype = state_dtype(p.value.dtype());
    SG_CHECK(p.value.is_contiguous(), "[{}] parameter {} ({}) is not contiguous; it has strides {}",
             optimizer_->name(), p.name, describe(p.value), p.value.strides());
    std::vector<Tensor>& states = states_.emplace_back();
    for (int slot = 0; slot < optimizer_->state_slots(); ++slot)
      states.push_back(Tensor::zeros(p.value.shape(), dtype, p.value.device()));
    steps_.push_back(0);
    // Flat views: states and values have the parameter's shape.
    std::vector<Tensor> flat;
    for (const Tensor& state : states) flat.push_back(state.reshape({-1}));
    updates_.emplace_back(optimizer_, p.value.reshape({-1}), std::move(flat),
                          std::vector<Section>{{0, p.value.numel(), p.hyper}});
  }
}

void SpanOptimizer::check_gradients(std::span<const Tensor> grads) const {
  SG_CHECK(grads.size() == parameters_.size(), "[{}] {} gradients for {} parameters",
           optimizer_->name(), grads.size(), parameters_.size());
  for (std::size_t i = 0; i < grads.size(); ++i) {
    if (!grads[i].defined()) continue;
    const Tensor& value = parameters_[i].value;
    const DType dtype = grads[i].dtype();
    SG_CHECK(grads[i].shape() == value.shape() &&
                 (dtype == value.dtype() || dtype == state_dtype(value.dtype())),
             "[{}] parameter {} is {} but its gradient is {}", optimizer_->name(),
             parameters_[i].name, describe(value), describe(grads[i]));
  }
}

void SpanOptimizer::step(std::span<const Tensor> grads, StepValues values) {
  check_gradients(grads);
  if (values.skip) return;
  for (std::size_t i = 0; i < grads.size(); ++i) {
    if (!grads[i].defined()) continue;
    values.step = ++steps_[i];
    const Tensor& value = parameters_[i].value;
    if (value.is_meta()) continue;
    updates_[i].set(values);
    updates_[i].run(grads[i].contiguous().to(state_dtype(value.dtype())).reshape({-1}));
    value.storage()->bump_version();
  }
  ++current_rank().state.step;  // the next step's forward draws other random numbers
}

double SpanOptimizer::grad_norm(std::span<const Tensor> grads, double divisor) const {
  check_gradients(grads);
  ExactSum sum;
  for (const Tensor& grad : grads) {
    if (!grad.defined() || grad.is_meta()) continue;
    add_squares(grad.contiguous().to(state_dtype(grad.dtype())).reshape({-1}), divisor, sum);
  }
  return std::sqrt(sum.value());
}

const Tensor& SpanOptimizer::state(std::string_view parameter, std::string_view state) const {
  const std::size_t i = index_of(parameter);
  const auto& names = optimizer_->state_names();
  const auto it = std::find(names.begin(), names.end(), state);
  SG_CHECK(it != names.end(), "[{}] has no state {}; it has: {}", optimizer_->name(), state,
           fmt::join(names, ", "));
  return states_[i][static_cast<std::size_t>(it - names.begin())];
}

std::size_t SpanOptimizer::index_of(std::string_view parameter) const {
  const auto it = std::find_if(parameters_.begin(), parameters_.end(),
                               [&](const Parameter& p) { return p.name == parameter; });
  SG_CHECK(it != parameters_.end(), "[{}] has no parameter {}", optimizer_->name(), parameter);
  return static_cast<std::size_t>(it - parameters_.begin());
}

}  // namespace sg::optim
