#include "core/kernels/isa/conv_pixels.h"

#include "core/kernels/isa/conv_direct.h"

namespace sg::kernels::SG_ISA {
namespace {

using std::int64_t;
using F32 = Vector<float>;
using I32 = Vector<std::int32_t>;
constexpr int kWidth = kLanes<float>;

template <int kRows, int kVectors, int kOuts>
SG_HD void accumulate(const ConvPixels& a, const float* x, F32 (&sum)[kOuts][kRows][kVectors]) {
  for (int o = 0; o < kOuts; ++o) {
    const F32 bias = a.bias != nullptr ? splat(a.bias[o]) : F32{};
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < kVectors; ++v) sum[o][r][v] = bias;
  }
  const float* w = a.w;
  const int64_t row = a.row;
#pragma GCC unroll 1
  for (int64_t t = 0; t < a.tap_count; ++t, w += kOuts) {
    const float* q = x + a.taps[t];
    F32 pixels[kRows][kVectors];
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < kVectors; ++v) pixels[r][v] = load(q + r * row + v * kWidth);
    for (int o = 0; o < kOuts; ++o) {
      const F32 weight = splat(w[o]);
      for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < kVectors; ++v)
          sum[o][r][v] = multiply_add<float>(weight, pixels[r][v], sum[o][r][v]);
    }
  }
}

template <int kVectors, int kOuts>
void tile(const ConvPixels& a, const float* x, float* y, std::uint8_t*, int64_t pixels) {
  F32 sum[kOuts][1][kVectors];
  accumulate<1, kVectors, kOuts>(a, x, sum);
  for (int o = 0; o < kOuts; ++o)
    for (int v = 0; v < kVectors; ++v) {
      F32 value = sum[o][0][v];
      if (a.relu) value = value < F32{} ? F32{} : value;
      if (pixels > v * kWidth) store_some(y + o * a.y_out + v * kWidth, value, pixels - v * kWidth);
    }
}

// Lanes 0, 2, 4, ... of a and b, or 1, 3, 5, ...
template <int kOdd>
SG_HD F32 every_other(F32 a, F32 b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, kOdd, 2 + kOdd, 4 + kOdd, 6 + kOdd, 8 + kOdd, 10 + kOdd,
                                 12 + kOdd, 14 + kOdd, 16 + kOdd, 18 + kOdd, 20 + kOdd, 22 + kOdd,
                                 24 + kOdd, 26 + kOdd, 28 + kOdd, 30 + kOdd);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, kOdd, 2 + kOdd, 4 + kOdd, 6 + kOdd, 8 + kOdd, 10 + kOdd,
                                 12 + kOdd, 14 + kOdd);
#else
  return __builtin_shufflevector(a, b, kOdd, 2 + kOdd, 4 + kOdd, 6 + kOdd);
#endif
}

template <int kVectors, int kOuts>
void pooled_tile(const ConvPixels& a, const float* x, float* y, std::uint8_t* index,
                 int64_t pixels) {
  F32 sum[kOuts][2][kVectors];
  accumulate<2, kVectors, kOuts>(a, x, sum);
  for (int o = 0; o < kOuts; ++o)
    for (int v = 0; v < kVectors; v += 2) {
      F32 window[4];
      for (int r = 0; r < 2; ++r) {
        const F32 left = sum[o][r][v],
                  right = v + 1 < kVectors ? sum[o][r][v + 1 < kVectors ? v + 1 : v] : F32{};
        window[2 * r] = every_other<0>(left, right);
        window[2 * r + 1] = every_other<1>(left, right);
      }
      I32 at;
      const F32 best = pool_after_relu(window, at);
      const int64_t offset = o * a.y_out + v / 2 * kWidth, lanes = pixels - v / 2 * kWidth;
      store_some(y + offset, best, lanes);
      store_some(index + offset, __builtin_convertvector(at, ConvBytes), lanes);
    }
}

// Two vectors of pixels at a time, then one; `pixels` of y remain.
template <int kOuts>
void forward_outs(const ConvPixels& a) {
  const bool pooled = a.index != nullptr;
  const int64_t scale = pooled ? 2 : 1;
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* x = a.x + r * scale * a.row;
    float* y = a.y + r * a.y_row;
    std::uint8_t* index = pooled ? a.index + r * a.y_row : nullptr;
    for (int64_t p = 0; p < a.width;) {
      const bool two = (a.width - p) * scale > kWidth;
      if (pooled)
        (two ? pooled_tile<2, kOuts> : pooled_tile<1, kOuts>)(a, x + p * scale, y + p, index + p,
                                                              a.width - p);
      else
        (two ? tile<2, kOuts> : tile<1, kOuts>)(a, x + p, y + p, nullptr, a.width - p);
      p += (two ? 2 : 1) * kWidth / scale;
    }
  }
}

void forward(const ConvPixels& a) {
  switch (a.outs) {
    case 1:
      return forward_outs<1>(a);
    case 2:
      return forward_outs<2>(a);
    case 3:
      return forward_outs<3>(a);
    case 4:
      return forward_outs<4>(a);
    case 5:
      return forward_outs<5>(a);
    default:
      return forward_outs<6>(a);
  }
}

}  // namespace

const ConvPixelsTable& conv_pixels_table() {
  static const ConvPixelsTable table{kWidth,
                                     kConvMostVectors,
                                     &forward,
                                     &conv_sparse_weight,
                                     &conv_sparse_input,
                                     &conv_interleave,
                                     &conv_separate,
                                     &conv_sparse_gather};
  return table;
}

}  // namespace sg::kernels::SG_ISA
