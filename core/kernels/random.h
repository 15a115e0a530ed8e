// Loops that draw random numbers.
#pragma once

#include <cstdint>

#include "core/kernels/isa.h"

namespace sg::kernels {

struct DropoutMask {
  std::uint64_t key;        ///< of philox
  std::uint32_t threshold;  ///< p * 2^32: an element whose word is below it is dropped
  double scale;             ///< 1 / (1 - p)
};

/// y[i] = scale x[i] or 0 for the elements start, start + 1, ... of a sample (`start` a multiple of
/// 4). Element e draws word e % 4 of philox(key, e / 4, sample).
struct RandomKernels {
  void (*dropout_f32)(const float* x, float* y, std::int64_t n, std::int64_t start,
                      std::uint64_t sample, const DropoutMask& mask);
  void (*dropout_f64)(const double* x, double* y, std::int64_t n, std::int64_t start,
                      std::uint64_t sample, const DropoutMask& mask);
};

SG_ISA_TABLE(RandomKernels, random_kernels)

}  // namespace sg::kernels
