// The seam between a module and an optimizer that knows no modules: values and gradients of
// parameters as flat spans.
//
//   auto views = nn::parameter_views(net);  // once: the values are made, and stay where they are
//   for (...) {
//     net.zero_grad();
//     loss_of(net).backward();
//     nn::update(views, [](const nn::ParameterView& p, const Tensor& grad) {
//       auto w = p.values<float>(), g = nn::span_of<float>(grad);
//       for (std::size_t i = 0; i < w.size(); ++i) w[i] -= 0.1f * g[i];
//     });
//   }
#pragma once

#include <span>
#include <string>
#include <vector>

#include "nn/module.h"

namespace sg::nn {

/// The elements of a contiguous tensor.
template <class T>
std::span<T> span_of(const Tensor& tensor) {
  SG_CHECK(tensor.is_contiguous(), "[span] {} is not contiguous", describe(tensor));
  if (tensor.numel() == 0) return {};
  return {tensor.data<T>(), static_cast<std::size_t>(tensor.numel())};
}

struct ParameterView {
  std::string name;
  Parameter parameter;
  Tensor value;  ///< contiguous; the parameter's own bytes
  template <class T>
  std::span<T> values() const {
    return span_of<T>(value);
  }
  /// The gradient, row-major as the value; undefined if no backward reached the parameter.
  Tensor grad() const;
};

/// The parameters that require a gradient, in the order of named_parameters(), their values made
/// where they were only declared. An error where a Source holds them.
std::vector<ParameterView> parameter_views(const Module& module);
/// The gradients of the views, in their order; undefined where there is none.
std::vector<Tensor> gradients(std::span<const ParameterView> views);
/// Tells autograd that the values were changed: a backward over a graph from before is then an
/// error.
void mark_changed(std::span<const ParameterView> views);

/// f(view, gradient) for each that has one, then mark_changed().
template <class F>
void update(std::span<const ParameterView> views, F&& f) {
  for (const ParameterView& view : views) {
    const Tensor grad = view.grad();
    if (grad.defined()) f(view, grad);
  }
  mark_changed(views);
}
template <class F>
void update(const std::vector<ParameterView>& views, F&& f) {
  update(std::span<const ParameterView>(views), std::forward<F>(f));
}

}  // namespace sg::nn
