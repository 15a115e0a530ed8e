#pragma once

#include <cstdint>

#include "core/kernels/isa.h"

namespace sg::kernels {

struct NormalizeTable {
  /// out[i] = (in[i] / 255 - mean) * scale, each operation rounded to f32.
  void (*f32)(const std::uint8_t* in, std::int64_t n, float mean, float scale, float* out);
};
SG_ISA_TABLE(NormalizeTable, normalize)

}  // namespace sg::kernels
