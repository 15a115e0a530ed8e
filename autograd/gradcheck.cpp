#include "autograd/gradcheck.h"

#include <algorithm>
#include <cmath>

#include "core/rng.h"

namespace sg {
namespace {

// Fixed weights in [0.5, 1.5) with alternating signs by chance: no element of the output is left
// out or cancels.
Tensor output_weights(const Shape& shape) {
  Tensor w = Tensor::empty(shape, DType::f64, kCpu);
  double* data = w.data<double>();
  for (std::int64_t i = 0; i < w.numel(); ++i) {
    const auto words = philox(name_key("gradcheck"), static_cast<std::uint64_t>(i), 0);
    data[i] = (0.5 + uniform_double(words[0], words[1])) * ((words[2] & 1) != 0 ? 1.0 : -1.0);
  }
  return w;
}

double contract(const Tensor& y, const Tensor& weights) {
  const std::vector<double> a = y.to_doubles();
  const double* w = weights.data<double>();
  double total = 0;
  for (std::size_t i = 0; i < a.size(); ++i) total += a[i] * w[i];
  return total;
}

// The element with row-major number `index`, as a view.
Tensor element(Tensor x, std::int64_t index) {
  for (int d = x.dim_count() - 1; d >= 0; --d) {
    const std::int64_t size = x.shape()[d];
    x = x.select(d, index % size);
    index /= size;
  }
  return x;
}

// Not counted as a change where the CPU reaches the memory: what is saved of x stays readable.
void set(const Tensor& element, double value) {
  if (element.is_cuda())
    element.fill(value);
  else
    *element.data<double>() = value;
}

}  // namespace

void gradcheck(const std::function<Var(std::span<const Var>)>& fn, std::vector<Var> inputs,
               const GradcheckOptions& options) {
  for (Var& input : inputs) {
    if (!input.requires_grad()) continue;
    SG_CHECK(input.dtype() == DType::f64 && input.is_leaf(),
             "[gradcheck] inputs must be f64 leaves, got {}", describe(input.value()));
    input.zero_grad();
  }
  const Var y = fn(inputs);
  const Tensor weights = output_weights(y.shape());
  y.backward(weights.to(y.value().device()));
  const NoGrad no_grad;
  for (std::size_t k = 0; k < inputs.size(); ++k) {
    if (!inputs[k].requires_grad()) continue;
    const Tensor x = inputs[k].value();
    const Tensor gradient = inputs[k].grad();
    const std::vector<double> analytic =
        gradient.defined() ? gradient.to_doubles()
                           : std::vector<double>(static_cast<std::size_t>(x.numel()), 0.0);
    for (std::int64_t i = 0; i < x.numel(); ++i) {
      const Tensor at = element(x, i);
      const double value = at.item(), step = options.step * std::max(1.0, std::abs(value));
      const double above = value + step, below = value - step;
      set(at, above);
      const double high = contract(fn(inputs).value(), weights);
      set(at, below);
      const double low = contract(fn(inputs).value(), weights);
      set(at, value);
      const double numeric = (high - low) / (above - below),
                   found = analytic[static_cast<std::size_t>(i)];
      SG_CHECK(std::abs(found - numeric) <= options.tolerance * std::max(1.0, std::abs(numeric)),
               "[gradcheck] input {} of shape {}, element {}: backward gives {}, differences give "
               "{} (off by {:.3g}, "
               "allowed {:.3g})",
               k, x.shape(), i, found, numeric, std::abs(found - numeric),
               options.tolerance * std::max(1.0, std::abs(numeric)));
    }
  }
}

}  // namespace sg
