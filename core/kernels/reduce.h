// Loops of reductions: one thread, contiguous rows. Lanes and order are the same for every
// instruction set, so the bits are, too.
#pragma once

#include <cstdint>

#include "core/kernels/isa.h"

namespace sg::kernels {

enum class Fold : std::uint8_t { sum, max, min };
inline constexpr int kFolds = 3;

template <class T>
struct ReduceLoops {
  /// Folds n contiguous values into `start`.
  double (*row[kFolds])(const T* x, std::int64_t n, double start);
  /// accumulator[j] = fold of it and of x[r * stride + j] over all rows r, for j < n.
  void (*rows[kFolds])(const T* x, std::int64_t stride, std::int64_t rows, std::int64_t n,
                       double* accumulator);
};

struct ReduceKernels {
  ReduceLoops<float> f32;
  ReduceLoops<double> f64;
};

SG_ISA_TABLE(ReduceKernels, reduce_kernels)

}  // namespace sg::kernels
