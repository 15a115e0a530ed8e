// What the files of the direct convolution share within one instruction set.
#pragma once

#include "core/kernels/conv_direct.h"
#include "core/kernels/simd.h"

namespace sg::kernels::SG_ISA {

void conv_direct_pack_image(const ConvPackImage&);
void conv_direct_pack_weights(const ConvPackWeights&);
void conv_direct_weight(const ConvWeight&);

// Accumulators of a tile leave registers for the operands. A run times one or two vectors makes a
// tile.
#if defined(__AVX512F__)
inline constexpr int kConvAccumulators = 28;
inline constexpr int kConvLongestRun[2] = {16, 14};
#else
inline constexpr int kConvAccumulators = 12;
inline constexpr int kConvLongestRun[2] = {12, 6};
#endif

namespace {

typedef std::uint8_t ConvBytes __attribute__((vector_size(kLanes<float>)));

// The first `lanes` of a vector, 0 < lanes; the others are not touched.
SG_HD void store_some(float* to, Vector<float> v, std::int64_t lanes) {
  if (lanes >= kLanes<float>) return store(to, v);
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << lanes) - 1), (__m512)v);
#else
  for (int l = 0; l < lanes; ++l) to[l] = v[l];
#endif
}
SG_HD void store_some(std::uint8_t* to, ConvBytes v, std::int64_t lanes) {
  if (lanes >= kLanes<float>) {
    std::memcpy(to, &v, sizeof v);
    return;
  }
#if defined(__AVX512F__)
  _mm_mask_storeu_epi8(to, static_cast<__mmask16>((1u << lanes) - 1), (__m128i)v);
#else
  for (int l = 0; l < lanes; ++l) to[l] = v[l];
#endif
}
// Zeros beyond the first `lanes`, which alone are read.
SG_HD Vector<float> load_some(const float* from, std::int64_t lanes) {
  if (lanes >= kLanes<float>) return load(from);
#if defined(__AVX512F__)
  return (Vector<float>)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << lanes) - 1), from);
#else
  Vector<float> v{};
  for (int l = 0; l < lanes; ++l) v[l] = from[l];
  return v;
#endif
}

// Fetches the part-th of `parts` parts of every range.
SG_HD void prefetch(const ConvPrefetch& next, std::int64_t part, std::int64_t parts) {
  for (int r = 0; r < ConvPrefetch::kRanges; ++r) {
    if (next.lines[r] == 0) continue;
    const std::int64_t last = next.lines[r] * (part + 1) / parts;
    for (std::int64_t i = next.lines[r] * part / parts; i < last; ++i)
      __builtin_prefetch(next.from[r] + i * 64, 0, 2);
  }
}

// relu and 2x2 max pooling of four values in row-major order. As PyTorch's: the first of equal
// maxima, and NaN wins. `at` is the winner's number, 4 if it is not above 0.
SG_HD Vector<float> pool_after_relu(const Vector<float> (&y)[4], Vector<std::int32_t>& at) {
  using F32 = Vector<float>;
  using I32 = Vector<std::int32_t>;
  F32 best = y[0];
  at = I32{};
  for (int k = 1; k < 4; ++k) {
    const I32 wins = (y[k] > best) | (y[k] != y[k]);
    best = wins ? y[k] : best;
    at = wins ? I32{} + k : at;
  }
  at = best <= F32{} ? I32{} + 4 : at;
  return best < F32{} ? F32{} : best;
}

}  // namespace

}  // namespace sg::kernels::SG_ISA
