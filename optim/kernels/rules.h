// What an optimizer does to one element, for the CPU's loops and the GPU's kernels alike. Every
// operation is one that IEEE 754 rounds correctly (no fma), so both give the same bits, subnormal
// numbers apart, which the CPU flushes to zero.
#pragma once

#include "core/kernels/math.h"
#include "optim/kernels/update.h"

namespace sg::kernels {

template <bool kDivide, class T>
SG_HD T mean_gradient(T sum, const GradientScale<T>& scale) {
  return kDivide ? sum / scale.divisor : sum * scale.reciprocal;
}

enum class Momentum { none, classic, nesterov };

/// `b` is not touched without momentum.
template <bool kDivide, Momentum kMomentum, class T>
SG_HD void sgd_rule(T& param, T grad, T& b, const SgdCoefficients<T>& c) {
  const T p = param;
  T g = mean_gradient<kDivide>(grad, c.scale) * c.scale.clip + c.l2 * p;
  if constexpr (kMomentum != Momentum::none) {
    const T moved = c.keep * b + c.take * g;
    b = moved;
    g = kMomentum == Momentum::nesterov ? g + c.momentum * moved : moved;
  }
  param = p - c.step_size * g;
}

template <bool kDivide, class T>
SG_HD void adam_rule(T& param, T grad, T& m, T& v, const AdamCoefficients<T>& c) {
  const T p = param;
  const T g = mean_gradient<kDivide>(grad, c.scale) * c.scale.clip + c.l2 * p;
  const T first = c.beta1 * m + c.rest1 * g;
  const T second = c.beta2 * v + (c.rest2 * g) * g;
  m = first;
  v = second;
  // One division an element: step_size and the bias correction are folded into factors.
  param = p * c.decay - (c.step_size * first) / (math::sqrt(second) * c.root_scale + c.eps);
}

}  // namespace sg::kernels
