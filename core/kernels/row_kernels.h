// The CPU table of the row programs (core/kernels/rows.h): blocks of contiguous rows, one thread.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/kernels/isa.h"

namespace sg::kernels {

template <class T>
struct CrossEntropyRows {
  const T* logits;              ///< [rows, n]
  const std::int64_t* targets;  ///< [rows], or null if `soft` is given
  const T* soft;                ///< [rows, n] class probabilities, or null
  T* stats;                     ///< [rows, 2]: log-sum-exp in two parts
  std::int64_t n, ignore_index;
  T smoothing;
};

template <class T>
struct RowLoops {
  void (*softmax)(const T* x, T* y, std::int64_t rows, std::int64_t n);
  void (*softmax_grad)(const T* y, const T* g, T* gx, std::int64_t rows, std::int64_t n);
  void (*log_softmax)(const T* x, T* y, std::int64_t rows, std::int64_t n);
  void (*log_softmax_grad)(const T* y, const T* g, T* gx, std::int64_t rows, std::int64_t n);
  void (*layer_norm)(const T* x, const T* weight, const T* bias, T* y, std::int64_t rows,
                     std::int64_t n, T eps, T* mean, T* rstd);
  void (*layer_norm_grad)(const T* x, const T* weight, const T* g, T* gx, std::int64_t rows,
                          std::int64_t n, const T* mean, const T* rstd);
  /// gw[j] += sum over rows of g (x - mean) rstd, gb[j] += sum of g; in double, row by row. Either
  /// may be null.
  void (*layer_norm_affine)(const T* x, const T* g, std::int64_t rows, std::int64_t n,
                            const T* mean, const T* rstd, double* gw, double* gb);
  /// loss[r] for rows [begin, end); 0 where the target is ignored.
  void (*cross_entropy)(const CrossEntropyRows<T>& c, std::int64_t begin, std::int64_t end,
                        T* loss);
  /// gx = scale[r * scale_stride] dloss/dx for rows [begin, end).
  void (*cross_entropy_grad)(const CrossEntropyRows<T>& c, std::int64_t begin, std::int64_t end,
                             const T* scale, std::int64_t scale_stride, T* gx);
};

struct RowKernels {
  RowLoops<float> f32;
  RowLoops<double> f64;
};

SG_ISA_TABLE(RowKernels, row_kernels)

/// Rows of n values that are worth a thread, for parallel_for.
inline std::int64_t row_grain(std::int64_t n) {
  return std::max<std::int64_t>((1 << 12) / std::max<std::int64_t>(n, 1), 1);
}

}  // namespace sg::kernels
