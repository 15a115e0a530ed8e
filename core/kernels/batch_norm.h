// Loops of batch normalisation: single-threaded parts of an op. A part is either `rows` of a
// channels-last tensor (n = rows, c = channels) or one channel's run of n neighbouring values of a
// row-major one (c = 1, vectorised along n).
#pragma once

#include <cstdint>

#include "core/kernels/isa.h"

namespace sg::kernels {

/// Per channel. y = (x - mean) * scale + bias, and relu of it.
template <class T>
struct BatchNormParams {
  const T *mean, *scale, *bias;
  bool relu;
};

template <class T>
struct BatchNormLoops {
  /// Adds sums of (x - shift) and (x - shift)^2 to sum[c] and square[c] (Chan, Golub and LeVeque,
  /// "Algorithms for computing the sample variance", 1983: a shift near the mean keeps the
  /// difference of squares from cancelling).
  void (*statistics)(const T* x, std::int64_t n, std::int64_t c, const T* shift, double* sum,
                     double* square);
  void (*normalize)(const T* x, T* y, std::int64_t n, std::int64_t c, const BatchNormParams<T>& p);
  /// Adds sums of g and g (x - mean) to sum[c] and product[c], g being dy where relu let y through.
  void (*reduce)(const T* x, const T* dy, std::int64_t n, std::int64_t c,
                 const BatchNormParams<T>& p, double* sum, double* product);
  /// dx = scale * (g - offset - (x - mean) * slope).
  void (*input_gradient)(const T* x, const T* dy, T* dx, std::int64_t n, std::int64_t c,
                         const BatchNormParams<T>& p, const T* offset, const T* slope);
};

struct BatchNormTable {
  BatchNormLoops<float> f32;
  BatchNormLoops<double> f64;
};
SG_ISA_TABLE(BatchNormTable, batch_norm)

template <class T>
const BatchNormLoops<T>& batch_norm_loops() {
  if constexpr (sizeof(T) == 4)
    return batch_norm().f32;
  else
    return batch_norm().f64;
}

}  // namespace sg::kernels
