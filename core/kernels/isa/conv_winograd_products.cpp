// The matrix products and the filters of Winograd's convolution. Tiles of a few dozen values pass
// through here at a time, so that they stay in the first-level cache: everything around the inner
// loops is kept short.
#include "core/kernels/isa/conv_direct.h"
#include "core/kernels/isa/conv_winograd.h"

namespace sg::kernels::SG_ISA {
namespace {

using std::int64_t;
using F32 = Vector<float>;
constexpr int64_t kWidth = kLanes<float>;

// Lanes l of transformed tiles.
SG_HD int64_t lane_at(int64_t l, int64_t block) { return l / kConvBlock * block + l % kConvBlock; }

template <int kTiles, int kVectors>
void product_tile(const float* from, int64_t blocks, int64_t block, const float* filters, float* to,
                  int64_t second) {
  F32 sum[kTiles][kVectors];
  for (int t = 0; t < kTiles; ++t)
    for (int v = 0; v < kVectors; ++v) sum[t][v] = F32{};
  for (int64_t b = 0; b < blocks; ++b, from += block)
#pragma GCC unroll 2
    for (int c = 0; c < kConvBlock; ++c, filters += kVectors * kWidth) {
      F32 w[kVectors];
      for (int v = 0; v < kVectors; ++v) w[v] = load(filters + v * kWidth);
      for (int t = 0; t < kTiles; ++t) {
        const F32 value = splat(from[t * kConvBlock + c]);
        for (int v = 0; v < kVectors; ++v) sum[t][v] = multiply_add<float>(value, w[v], sum[t][v]);
      }
    }
  for (int t = 0; t < kTiles; ++t)
    for (int v = 0; v < kVectors; ++v) store(to + t * kConvBlock + v * second, sum[t][v]);
}

using ProductTile = void (*)(const float*, int64_t, int64_t, const float*, float*, int64_t);

template <int kVectors>
struct ProductTiles {
  static constexpr int kWidest =
      kConvAccumulators / kVectors < 16 ? kConvAccumulators / kVectors : 16;
  ProductTile of[kWidest];
  template <int kTiles = 1>
  constexpr void fill() {
    if constexpr (kTiles <= kWidest) {
      of[kTiles - 1] = &product_tile<kTiles, kVectors>;
      fill<kTiles + 1>();
    }
  }
  constexpr ProductTiles() : of{} { fill(); }
};
template <int kVectors>
constexpr ProductTiles<kVectors> product_tiles{};

// As few pieces as possible, nearly equal: `wide` of size + 1 tiles, the others of size.
template <int kVectors>
struct Cut {
  unsigned pieces, size, wide;
  ProductTile smaller, larger;
  explicit Cut(int64_t tiles) {
    constexpr unsigned kWidest = ProductTiles<kVectors>::kWidest;
    const unsigned total = static_cast<unsigned>(tiles);
    pieces = (total + kWidest - 1) / kWidest;
    size = total / pieces;
    wide = total % pieces;
    smaller = product_tiles<kVectors>.of[size - 1];
    larger = product_tiles<kVectors>.of[wide > 0 ? size : size - 1];
  }
};

// Lanes from `lane` on at position p.
template <int kVectors>
void products_of(const WinogradProducts& a, const Cut<kVectors>& cut, int64_t p, int64_t lane) {
  const int64_t second = lane_at(lane + kWidth, a.to_block) - lane_at(lane, a.to_block);
  const float* from = a.from + p * a.from_plane;
  const float* filters = a.filters + (p * a.lanes + lane) * a.channels;
  float* to = a.to + p * a.to_plane + lane_at(lane, a.to_block);
  for (unsigned t = 0; t < cut.pieces; ++t) {
    const int64_t tiles = t < cut.wide ? cut.size + 1 : cut.size;
    (t < cut.wide ? cut.larger : cut.smaller)(from, a.channels / kConvBlock, a.from_block, filters,
                                              to, second);
    from += tiles * kConvBlock;
    to += tiles * kConvBlock;
  }
}

// kRun channels times kVectors vectors of lanes.
template <int kRun, int kVectors>
void sum_tile(const float* x, const float* dy, int64_t second, int64_t tiles, float* sums) {
  F32 sum[kRun][kVectors];
  for (int r = 0; r < kRun; ++r)
    for (int v = 0; v < kVectors; ++v) sum[r][v] = F32{};
#pragma GCC unroll 2
  for (int64_t t = 0; t < tiles; ++t, x += kConvBlock, dy += kConvBlock) {
    F32 g[kVectors];
    for (int v = 0; v < kVectors; ++v) g[v] = load(dy + v * second);
    for (int r = 0; r < kRun; ++r) {
      const F32 value = splat(x[r]);
      for (int v = 0; v < kVectors; ++v) sum[r][v] = multiply_add<float>(value, g[v], sum[r][v]);
    }
  }
  for (int r = 0; r < kRun; ++r)
    for (int v = 0; v < kVectors; ++v) {
      float* to = sums + (r * kVectors + v) * kWidth;
      store(to, load(to) + sum[r][v]);
    }
}

// The run divides a block of 16 channels.
template <int kVectors>
constexpr int run_of = kConvAccumulators / kVectors >= 16  ? 16
                       : kConvAccumulators / kVectors >= 8 ? 8
                                                           : 4;

template <int kVectors>
void sums_of(const WinogradSums& a, int64_t lane) {
  constexpr int kRun = run_of<kVectors>;
  const int64_t second = lane_at(lane + kWidth, a.dy_block) - lane_at(lane, a.dy_block);
  for (int64_t p = a.first; p < a.last; ++p) {
    const float* dy = a.dy + p * a.dy_plane + lane_at(lane, a.dy_block);
    float* sums = a.sums + (p * a.lanes + lane) * a.channels;
    for (int64_t c = 0; c < a.channels; c += kRun)
      sum_tile<kRun, kVectors>(a.x + p * a.x_plane + lane_at(c, a.x_block), dy, second, a.tiles,
                               sums + c * kVectors * kWidth);
  }
}

// One dimension of G g.
SG_HD void transform_filter(F32 g0, F32 g1, F32 g2, F32 (&u)[4]) {
  const F32 half = splat(0.5f), ends = (g0 + g2) * half, middle = g1 * half;
  u[0] = g0;
  u[1] = ends + middle;
  u[2] = ends - middle;
  u[3] = g2;
}

constexpr int64_t kTaps = 9;

// One dimension of G^T s.
SG_HD void transform_filter_back(F32 s0, F32 s1, F32 s2, F32 s3, F32 (&g)[3]) {
  const F32 half = splat(0.5f), even = (s1 + s2) * half, odd = (s1 - s2) * half;
  g[0] = s0 + even;
  g[1] = odd;
  g[2] = even + s3;
}

}  // namespace

void winograd_products(const WinogradProducts& a) {
  const Cut<2> two(a.tiles);
  const Cut<1> one(a.tiles);
  for (int64_t p = a.first; p < a.last; ++p) {
    int64_t lane = 0;
    for (; lane + kWidth < a.lanes; lane += 2 * kWidth) products_of<2>(a, two, p, lane);
    if (lane < a.lanes) products_of<1>(a, one, p, lane);
  }
}

void winograd_sums(const WinogradSums& a) {
  int64_t lane = 0;
  for (; lane + kWidth < a.lanes; lane += 2 * kWidth) sums_of<2>(a, lane);
  if (lane < a.lanes) sums_of<1>(a, lane);
}

void winograd_filters(const WinogradFilters& f, const float* from, int64_t first, int64_t last,
                      float* to) {
  const int64_t plane = f.lanes * f.channels;
  for (int64_t group = first; group < last;) {
    const int64_t width = f.lanes - group > kWidth ? 2 * kWidth : kWidth;
    for (int64_t c = 0; c < f.channels; ++c)
      for (int64_t l = 0; l < width; l += kWidth) {
        float g[kTaps][kWidth];
        for (int64_t i = 0; i < kWidth; ++i) {
          const float* filter = from + (group + l + i) * f.sl + c * f.sc;
          for (int64_t t = 0; t < kTaps; ++t) g[t][i] = filter[t];
        }
        F32 down[3][4];
        for (int j = 0; j < 3; ++j)
          transform_filter(load(g[j]), load(g[3 + j]), load(g[6 + j]), down[j]);
        for (int i = 0; i < 4; ++i) {
          F32 u[4];
          transform_filter(down[0][i], down[1][i], down[2][i], u);
          for (int j = 0; j < 4; ++j)
            store(to + (4 * i + j) * plane + group * f.channels + c * width + l, u[j]);
        }
      }
    group += width;
  }
}

void winograd_filters_grad(const WinogradFilters& f, const float* sums, int64_t first, int64_t last,
                           float* dw) {
  const int64_t plane = f.lanes * f.channels;
  for (int64_t group = first; group < last;) {
    const int64_t width = f.lanes - group > kWidth ? 2 * kWidth : kWidth;
    for (int64_t c = 0; c < f.channels; ++c)
      for (int64_t l = 0; l < width; l += kWidth) {
        const float* s = sums + group * f.channels + c * width + l;
        F32 across[4][3];
        for (int i = 0; i < 4; ++i)
          transform_filter_back(load(s + 4 * i * plane), load(s + (4 * i + 1) * plane),
                                load(s + (4 * i + 2) * plane), load(s + (4 * i + 3) * plane),
                                across[i]);
        float g[kTaps][kWidth];
        for (int j = 0; j < 3; ++j) {
          F32 down[3];
          transform_filter_back(across[0][j], across[1][j], across[2][j], across[3][j], down);
          for (int i = 0; i < 3; ++i) store(g[3 * i + j], down[i]);
        }
        for (int64_t i = 0; i < kWidth; ++i) {
          float* filter = dw + (group + l + i) * f.sl + c * f.sc;
          for (int64_t t = 0; t < kTaps; ++t) filter[t] = g[t][i];
        }
      }
    group += width;
  }
}

}  // namespace sg::kernels::SG_ISA
