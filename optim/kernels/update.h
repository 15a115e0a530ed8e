// The loops of the optimizers: single-threaded, over spans of any length and alignment. Every
// operation is one that IEEE 754 rounds correctly (no fma), element by element, so the bits are the
// same for every instruction set, for any cut of a span and for vector body and tail alike.
#pragma once

#include <cstdint>

#include "core/kernels/isa.h"

namespace sg::kernels {

/// An optimizer's kernel on a GPU (optim/cuda/update.h); none: it has one for the CPU alone.
enum class Rule { none, sgd, adam };

/// What becomes of a summed gradient before it is used: the mean over `divisor` slices, times the
/// clip coefficient.
template <class T>
struct GradientScale {
  T divisor = 1;
  T clip = 1;
  /// 1 / divisor if that is exact (a power of two): multiplying by it rounds as dividing does, and
  /// is faster.
  T reciprocal = 1;
  bool divide = false;
};

/// g += l2 p;  b = keep b + take g;  p -= step_size (nesterov ? g + momentum b : b).
template <class T>
struct SgdCoefficients {
  GradientScale<T> scale;
  T step_size, l2, momentum, keep, take;
  bool nesterov;
};

/// p *= decay;  g += l2 p;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g g;
/// p -= step_size m / (sqrt(v) root_scale + eps).
template <class T>
struct AdamCoefficients {
  GradientScale<T> scale;
  T step_size, decay, l2, beta1, rest1, beta2, rest2, root_scale, eps;
};

template <class T>
struct UpdateLoops {
  /// `buffer` is null for SGD without momentum.
  void (*sgd)(T* param, const T* grad, T* buffer, std::int64_t n, const SgdCoefficients<T>& c);
  void (*adam)(T* param, const T* grad, T* m, T* v, std::int64_t n, const AdamCoefficients<T>& c);
  /// sums[i] = the squares of the mean gradients of block i (64 elements; a shorter last one counts
  /// as padded with zeros), added in double in an order that is part of the definition: eight
  /// lanes, then a tree. Clip is not used.
  void (*block_squares)(const T* grad, std::int64_t n, const GradientScale<T>& scale, double* sums);
};

inline constexpr std::int64_t kSquaresBlock = 64;

struct OptimizerKernels {
  UpdateLoops<float> f32;
  UpdateLoops<double> f64;
};

SG_ISA_TABLE(OptimizerKernels, optimizer_kernels)

}  // namespace sg::kernels
