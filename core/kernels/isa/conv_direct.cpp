#include "core/kernels/isa/conv_direct.h"

namespace sg::kernels::SG_ISA {

namespace {

using std::int64_t;
using F32 = Vector<float>;
using I32 = Vector<std::int32_t>;

constexpr int kMostPixels = 16;

template <int kVectors>
constexpr int widest_tile =
    kConvAccumulators / kVectors < kMostPixels ? kConvAccumulators / kVectors : kMostPixels;
template <int kVectors>
constexpr int widest_pooled_tile = kConvAccumulators / kVectors / 4;

// All taps and channels of kRows x kPixels output pixels times kVectors vectors of output channels.
template <int kRows, int kPixels, int kVectors, int kStep>
SG_HD void accumulate(const ConvForward& a, const float* x, F32 (&sum)[kRows][kPixels][kVectors]) {
  for (int v = 0; v < kVectors; ++v) {
    const F32 bias = a.bias != nullptr ? load(a.bias + v * kLanes<float>) : F32{};
    for (int r = 0; r < kRows; ++r)
      for (int p = 0; p < kPixels; ++p) sum[r][p][v] = bias;
  }
  const float* w = a.w;
  const auto multiply = [&](const float* q) __attribute__((always_inline)) {
    F32 weight[kVectors];
    for (int v = 0; v < kVectors; ++v) weight[v] = load(w + v * kLanes<float>);
    w += kVectors * kLanes<float>;
    for (int r = 0; r < kRows; ++r)
      for (int p = 0; p < kPixels; ++p) {
        const F32 value = splat(q[r * a.row + p * kStep]);
        for (int v = 0; v < kVectors; ++v)
          sum[r][p][v] = multiply_add<float>(value, weight[v], sum[r][p][v]);
      }
  };
  if constexpr (kStep < kConvBlock) {
    for (int64_t t = 0; t < a.tap_count; ++t) multiply(x + a.taps[t]);
  } else {
    for (int64_t b = 0; b < a.blocks; ++b, x += a.block_stride) {
      const int64_t channels = b + 1 < a.blocks ? kConvBlock : a.last_channels;
      for (int64_t t = 0; t < a.tap_count; ++t) {
        const float* q = x + a.taps[t];
#pragma GCC unroll 1
        for (int64_t c = 0; c < channels; ++c) multiply(q + c);
      }
    }
  }
}

// The first `lanes` lanes of a vector, `stride` apart.
template <class V, class T>
SG_HD void put(T* to, V v, int64_t lanes, int64_t stride) {
  constexpr int64_t kWidth = kLanes<float>;
  if (stride == 1) {
    store_some(to, v, lanes);
    return;
  }
  T values[kWidth];
  std::memcpy(values, &v, sizeof v);
  for (int64_t i = 0; i < (lanes < kWidth ? lanes : kWidth); ++i) to[i * stride] = values[i];
}

template <int kPixels, int kVectors, int kStep>
void tile(const ConvForward& a, const float* x, float* y, std::uint8_t*) {
  F32 sum[1][kPixels][kVectors];
  accumulate<1, kPixels, kVectors, kStep>(a, x, sum);
  for (int p = 0; p < kPixels; ++p)
    for (int v = 0; v < kVectors; ++v) {
      F32 value = sum[0][p][v];
      if (a.relu) value = value < F32{} ? F32{} : value;
      put(y + p * a.y_pixel + v * kLanes<float> * a.y_lane, value, a.lanes - v * kLanes<float>,
          a.y_lane);
    }
}

// relu and 2x2 max pooling while the tile is in registers.
template <int kPixels, int kVectors, int kStep>
void pooled_tile(const ConvForward& a, const float* x, float* y, std::uint8_t* index) {
  F32 sum[2][2 * kPixels][kVectors];
  accumulate<2, 2 * kPixels, kVectors, kStep>(a, x, sum);
  for (int p = 0; p < kPixels; ++p)
    for (int v = 0; v < kVectors; ++v) {
      const F32 window[4] = {sum[0][2 * p][v], sum[0][2 * p + 1][v], sum[1][2 * p][v],
                             sum[1][2 * p + 1][v]};
      I32 at;
      const F32 best = pool_after_relu(window, at);
      const int64_t offset = p * a.y_pixel + v * kLanes<float> * a.y_lane;
      put(y + offset, best, a.lanes - v * kLanes<float>, a.y_lane);
      put(index + offset, __builtin_convertvector(at, ConvBytes), a.lanes - v * kLanes<float>,
          a.y_lane);
    }
}

using Tile = void (*)(const ConvForward&, const float* x, float* y, std::uint8_t* index);

// Tiles of 1, 2, ... pixels.
template <int kVectors, int kStep>
struct Tiles {
  Tile plain[widest_tile<kVectors>], pooled[widest_pooled_tile<kVectors>];

  template <int kPixels = 1>
  constexpr void fill() {
    if constexpr (kPixels <= widest_pooled_tile<kVectors>)
      pooled[kPixels - 1] = &pooled_tile<kPixels, kVectors, kStep>;
    if constexpr (kPixels <= widest_tile<kVectors>) {
      plain[kPixels - 1] = &tile<kPixels, kVectors, kStep>;
      fill<kPixels + 1>();
    }
  }
  constexpr Tiles() : plain{}, pooled{} { fill(); }
};
template <int kVectors, int kStep>
constexpr Tiles<kVectors, kStep> tiles_of{};

template <int kVectors, int kStep>
void forward_typed(const ConvForward& a) {
  const bool pooled = a.index != nullptr;
  const unsigned widest = pooled ? widest_pooled_tile<kVectors> : widest_tile<kVectors>;
  // As few tiles as possible, of nearly equal widths: `wide` of size + 1, the others of size.
  const unsigned total = static_cast<unsigned>(a.width), tiles = (total + widest - 1) / widest;
  const unsigned size = total / tiles, wide = total % tiles;
  const Tile* table = pooled ? tiles_of<kVectors, kStep>.pooled : tiles_of<kVectors, kStep>.plain;
  const Tile smaller = table[size - 1], larger = table[wide > 0 ? size : size - 1];
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* x = a.x + r * (pooled ? 2 : 1) * a.row;
    float* y = a.y + r * a.y_row;
    std::uint8_t* index = pooled ? a.index + r * a.y_row : nullptr;
    for (unsigned t = 0; t < tiles; ++t) {
      const int64_t pixels = t < wide ? size + 1 : size;
      prefetch(a.next, r * tiles + t, a.rows * tiles);
      (t < wide ? larger : smaller)(a, x, y, index);
      x += pixels * (pooled ? 2 : 1) * kStep;
      y += pixels * a.y_pixel;
      if (pooled) index += pixels * a.y_pixel;
    }
  }
}

template <int kVectors>
void forward_vectors(const ConvForward& a) {
  switch (a.step) {
    case 1:
      return forward_typed<kVectors, 1>(a);
    case 2:
      return forward_typed<kVectors, 2>(a);
    case 16:
      return forward_typed<kVectors, 16>(a);
    default:
      return forward_typed<kVectors, 32>(a);
  }
}

void forward(const ConvForward& a) {
  if (a.rows == 0 || a.width == 0) return;
  if (a.lanes > kLanes<float>) return forward_vectors<2>(a);
  forward_vectors<1>(a);
}

}  // namespace

const ConvDirectTable& conv_direct_table() {
  static const ConvDirectTable table{kLanes<float>,
                                     {kConvLongestRun[0], kConvLongestRun[1]},
                                     &conv_direct_pack_image,
                                     &conv_direct_pack_weights,
                                     &forward,
                                     &conv_direct_weight};
  return table;
}

}  // namespace sg::kernels::SG_ISA
