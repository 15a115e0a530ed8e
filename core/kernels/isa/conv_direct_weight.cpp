// The weight's gradient, and packing, of the direct convolution.
#include "core/kernels/isa/conv_direct.h"

namespace sg::kernels::SG_ISA {

namespace {

using std::int64_t;
using F32 = Vector<float>;

// kRun neighbouring input values of a pixel times kVectors vectors of output channels, summed over
// all pixels.
template <int kRun, int kVectors>
void weight_tile(const ConvWeight& a) {
  F32 sum[kRun][kVectors];
  for (int r = 0; r < kRun; ++r)
    for (int v = 0; v < kVectors; ++v) sum[r][v] = F32{};
  for (int64_t n = 0; n < a.images; ++n)
    for (int64_t i = 0; i < a.rows; ++i) {
      const float* x = a.x + n * a.x_image + i * a.x_row;
      const float* dy = a.dy + n * a.dy_image + i * a.dy_row;
      prefetch(a.next, n * a.rows + i, a.images * a.rows);
#pragma GCC unroll 1
      for (int64_t p = 0; p < a.width; ++p, x += a.x_pixel, dy += a.dy_pixel) {
        F32 g[kVectors];
        for (int v = 0; v < kVectors; ++v) g[v] = load(dy + v * a.dy_vector);
        for (int r = 0; r < kRun; ++r) {
          const F32 value = splat(x[r]);
          for (int v = 0; v < kVectors; ++v)
            sum[r][v] = multiply_add<float>(value, g[v], sum[r][v]);
        }
      }
    }
  // Sums of a part start from zero and are added once: the rounding errors of long sums stay small.
  for (int r = 0; r < kRun; ++r)
    for (int v = 0; v < kVectors; ++v) {
      float* to = a.dw + (r * kVectors + v) * kLanes<float>;
      store(to, load(to) + sum[r][v]);
    }
}

using WeightTile = void (*)(const ConvWeight&);

// Runs of 1, 2, ... values.
template <int kVectors>
struct WeightTiles {
  static constexpr int kLongest = kConvLongestRun[kVectors - 1];
  WeightTile tile[kLongest];
  template <int kRun = 1>
  constexpr void fill() {
    if constexpr (kRun <= kLongest) {
      tile[kRun - 1] = &weight_tile<kRun, kVectors>;
      fill<kRun + 1>();
    }
  }
  constexpr WeightTiles() : tile{} { fill(); }
};
template <int kVectors>
constexpr WeightTiles<kVectors> weight_tiles{};

inline void zero(float* p, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes<float>) store_some(p + i, F32{}, n - i);
}

// One row of `columns` pixels of a block of channels, of which `channels` exist.
void pack_row(const ConvPackImage& a, const float* from, const float* mask, int64_t channels,
              float* to) {
  const int64_t before = a.left < 0 ? (-a.left < a.columns ? -a.left : a.columns) : 0;
  int64_t after = a.w - a.left < a.columns ? a.w - a.left : a.columns;
  if (after < before) after = before;
  zero(to, before * a.block);
  zero(to + after * a.block, (a.columns - after) * a.block);
  const float* source = from + (a.left + before) * a.sx;
  const float* decide = mask == nullptr ? nullptr : mask + (a.left + before) * a.sx;
  float* row = to + before * a.block;
  const int64_t pixels = after - before;
  if (a.block == 1) {
    if (decide == nullptr && a.sx == 1) {
      // No call of memcpy: rows are short.
      for (int64_t x = 0; x < pixels; x += kLanes<float>)
        store_some(row + x, load_some(source + x, pixels - x), pixels - x);
      return;
    }
    for (int64_t x = 0; x < pixels; ++x)
      row[x] = decide == nullptr || decide[x * a.sx] > 0 ? source[x * a.sx] : 0;
    return;
  }
  if (a.sc == 1 && channels == kConvBlock) {
    for (int64_t x = 0; x < pixels; ++x)
      for (int64_t c = 0; c < kConvBlock; c += kLanes<float>) {
        F32 v = load(source + x * a.sx + c);
        if (decide != nullptr) v = load(decide + x * a.sx + c) > F32{} ? v : F32{};
        store(row + x * kConvBlock + c, v);
      }
    return;
  }
  if (channels < a.block) zero(row, pixels * a.block);
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t x = 0; x < pixels; ++x) {
      const int64_t at = x * a.sx + c * a.sc;
      row[x * a.block + c] = decide == nullptr || decide[at] > 0 ? source[at] : 0;
    }
}

}  // namespace

void conv_direct_pack_image(const ConvPackImage& a) {
  const int64_t blocks = (a.channels + a.block - 1) / a.block;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t first = b * a.block;
    const int64_t channels = a.channels - first < a.block ? a.channels - first : a.block;
    for (int64_t r = 0; r < a.rows; ++r) {
      float* to = a.to + (b * a.rows + r) * a.columns * a.block;
      const int64_t y = a.top + r;
      if (y < 0 || y >= a.h) {
        zero(to, a.columns * a.block);
        continue;
      }
      const int64_t at = first * a.sc + y * a.sy;
      pack_row(a, a.from + at, a.mask == nullptr ? nullptr : a.mask + at, channels, to);
      if (a.sums == nullptr) continue;
      // A row in float, rows in double.
      float sum[kConvBlock] = {};
      for (int64_t x = 0; x < a.columns; ++x)
        for (int64_t c = 0; c < a.block; ++c) sum[c] += to[x * a.block + c];
      for (int64_t c = 0; c < channels; ++c) a.sums[first + c] += static_cast<double>(sum[c]);
    }
  }
}

void conv_direct_pack_weights(const ConvPackWeights& a) {
  constexpr int64_t kWidth = kLanes<float>;
  float* to = a.to;
  for (int64_t first = 0; first < a.lanes;) {
    const int64_t left = a.lanes - first, width = left > kWidth ? 2 * kWidth : kWidth;
    const int64_t valid = left < width ? left : width;
    for (int64_t block = 0; block < a.channels; block += a.block) {
      const int64_t channels = a.channels - block < a.block ? a.channels - block : a.block;
      for (int64_t t = 0; t < a.tap_count; ++t)
        for (int64_t c = 0; c < channels; ++c, to += width) {
          const float* from = a.from + first * a.sl + (block + c) * a.sc + a.taps[t];
          for (int64_t l = 0; l < valid; ++l) to[l] = from[l * a.sl];
          zero(to + valid, width - valid);
        }
    }
    first += width;
  }
}

void conv_direct_weight(const ConvWeight& a) {
  (a.vectors == 2 ? weight_tiles<2>.tile : weight_tiles<1>.tile)[a.run - 1](a);
}

}  // namespace sg::kernels::SG_ISA
