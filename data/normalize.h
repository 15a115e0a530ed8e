// Pixels to numbers: (x / 255 - mean) / deviation, rounded after each of the three operations as
// PyTorch's ToTensor and Normalize do, so that the bits are theirs.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <variant>

#include "core/dtype.h"

namespace sg::data {

class Normalizer {
 public:
  /// For tensors of `dtype`, a floating one; computed in f64 for f64 and in f32 for the others.
  Normalizer(DType dtype, double mean, double deviation);

  /// Writes in.size() values of the dtype to `out`.
  void operator()(std::span<const std::uint8_t> in, void* out) const;

 private:
  template <class T>
  using Table = std::array<T, 256>;  // a pixel has 256 values: look the result up

  std::variant<Table<float>, Table<double>, Table<bf16>, Table<f16>> table_;
  float mean_;
  float scale_;  // 1 / deviation where that is exact (a power of two) and the dtype is f32: a
                 // faster kernel; else 0
};

}  // namespace sg::data
