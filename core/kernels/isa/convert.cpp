// 16-bit values to float and back, by integer arithmetic without branches; the same bits as bf16
// and f16 in core/dtype.h.
#include "core/kernels/elementwise.h"

namespace sg::kernels::SG_ISA {
namespace {

void bf16_to_float(const std::uint16_t* x, float* y, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) y[i] = std::bit_cast<float>(std::uint32_t{x[i]} << 16);
}

void float_to_bf16(const float* x, std::uint16_t* y, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t u = std::bit_cast<std::uint32_t>(x[i]);
    const std::uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    const std::uint32_t quiet = (u >> 16) | 0x40;  // NaN stays one
    y[i] = static_cast<std::uint16_t>((u & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
  }
}

void f16_to_float(const std::uint16_t* x, float* y, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t h = x[i];
    const std::uint32_t sign = (h & 0x8000) << 16, exponent = (h >> 10) & 0x1f,
                        mantissa = h & 0x3ff;
    const std::uint32_t normal = ((exponent + 112) << 23) | (mantissa << 13);
    const std::uint32_t special = 0x7f800000 | (mantissa << 13);
    // Subnormal halves are normal floats: an integer times 2^-24.
    const std::uint32_t small = std::bit_cast<std::uint32_t>(
        static_cast<float>(static_cast<std::int32_t>(mantissa)) * 0x1p-24f);
    const std::uint32_t finite = exponent == 0 ? small : normal;
    y[i] = std::bit_cast<float>(sign | (exponent == 31 ? special : finite));
  }
}

void float_to_f16(const float* x, std::uint16_t* y, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t u = std::bit_cast<std::uint32_t>(x[i]);
    const std::uint32_t sign = (u >> 16) & 0x8000, magnitude = u & 0x7fffffff;
    // Normal halves: shift the exponent's bias, round the 13 lowest bits away.
    const std::uint32_t biased = magnitude - 0x38000000;
    const std::uint32_t normal = (biased + 0xfff + ((biased >> 13) & 1)) >> 13;
    // Subnormal halves: adding 1/2 leaves multiples of 2^-24 in the low bits, rounded by the
    // addition itself.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    const std::uint32_t small = std::bit_cast<std::uint32_t>(shifted) - 0x3f000000;
    const std::uint32_t special = magnitude > 0x7f800000 ? 0x7e00u : 0x7c00u;
    const std::uint32_t finite = magnitude < 0x38800000 ? small : normal;
    y[i] = static_cast<std::uint16_t>(sign | (magnitude >= 0x477ff000 ? special : finite));
  }
}

}  // namespace

const ConvertKernels& convert_kernels_table() {
  static const ConvertKernels table{bf16_to_float, float_to_bf16, f16_to_float, float_to_f16};
  return table;
}

}  // namespace sg::kernels::SG_ISA
