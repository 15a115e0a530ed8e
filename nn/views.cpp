#include "nn/views.h"

namespace sg::nn {

Tensor ParameterView::grad() const {
  const Tensor& grad = parameter.grad();
  return grad.defined() ? grad.contiguous() : grad;
}

std::vector<ParameterView> parameter_views(const Module& module) {
  std::vector<ParameterView> views;
  for (const NamedParameter& p : module.named_parameters()) {
    if (!p.parameter.requires_grad()) continue;
    if (p.parameter.declared()) p.parameter.value();
    const Tensor value = p.parameter.held();
    SG_CHECK(value.defined(), "[parameter] {} is not whole here: it is held by {}", p.name,
             p.parameter.var().impl().source->name());
    views.push_back({p.name, p.parameter, value});
  }
  return views;
}

std::vector<Tensor> gradients(std::span<const ParameterView> views) {
  std::vector<Tensor> result;
  for (const ParameterView& view : views) result.push_back(view.grad());
  return result;
}

void mark_changed(std::span<const ParameterView> views) {
  for (const ParameterView& view : views) view.value.storage()->bump_version();
}

}  // namespace sg::nn
