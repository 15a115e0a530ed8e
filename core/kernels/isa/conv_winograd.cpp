#include "core/kernels/isa/conv_winograd.h"

#include "core/kernels/isa/conv_direct.h"

namespace sg::kernels::SG_ISA {
namespace {

using std::int64_t;
using F32 = Vector<float>;
using I32 = Vector<std::int32_t>;
constexpr int64_t kWidth = kLanes<float>;

// Calls f(channel, offset of the channel within transformed tiles) for every vector of channels.
template <class F>
SG_HD void each_vector(const WinogradTiles& tiles, F&& f) {
  for (int64_t c = 0; c < tiles.channels; c += kWidth)
    f(c, c / kConvBlock * tiles.block + c % kConvBlock);
}

// One dimension of B^T d.
SG_HD void transform_input(const F32 (&d)[4], F32 (&v)[4]) {
  v[0] = d[0] - d[2];
  v[1] = d[1] + d[2];
  v[2] = d[2] - d[1];
  v[3] = d[1] - d[3];
}

// Strides are copied to locals in all these loops: a store through memcpy might change anything
// behind a pointer, and the compiler would read them again after each.

void input(const WinogradInput& a) {
  const WinogradTiles tiles = a.tiles;
  const int64_t plane = tiles.plane, width = a.w, left = a.left;
  static const float zeros[kWidth] = {};
  each_vector(tiles, [&](int64_t c, int64_t offset) {
    float* to = a.to + offset;
    for (int64_t ty = tiles.first; ty < tiles.first + tiles.rows; ++ty) {
      // A row outside the image is a zero that is read again and again.
      const float* row[4];
      int64_t pixel[4];
      for (int i = 0; i < 4; ++i) {
        const int64_t y = 2 * ty - a.top + i;
        const bool inside = y >= 0 && y < a.h;
        row[i] = inside ? a.x + y * a.x_row + c : zeros;
        pixel[i] = inside ? a.x_pixel : 0;
      }
      // One column of a tile, transformed downwards.
      const auto column = [&](int64_t x, F32(&v)[4]) __attribute__((always_inline)) {
        F32 d[4] = {};
        if (x >= 0 && x < width)
          for (int i = 0; i < 4; ++i) d[i] = load(row[i] + x * pixel[i]);
        transform_input(d, v);
      };
      // Neighbouring tiles share two columns.
      F32 v[4][4];  // [column][row]
      column(-left, v[0]);
      column(1 - left, v[1]);
      for (int64_t tx = 0; tx < tiles.columns; ++tx, to += kConvBlock) {
        column(2 * tx + 2 - left, v[2]);
        column(2 * tx + 3 - left, v[3]);
        for (int i = 0; i < 4; ++i) {
          float* out = to + 4 * i * plane;
          store(out, v[0][i] - v[2][i]);
          store(out + plane, v[1][i] + v[2][i]);
          store(out + 2 * plane, v[2][i] - v[1][i]);
          store(out + 3 * plane, v[1][i] - v[3][i]);
        }
        for (int i = 0; i < 4; ++i) {
          v[0][i] = v[2][i];
          v[1][i] = v[3][i];
        }
      }
    }
  });
}

// A dY A^T of one tile, written to 16 planes.
SG_HD void put_grad(const F32 (&g)[4], float* to, int64_t plane) {
  for (int j = 0; j < 4; ++j) {
    // Column j of dY A^T: g0, g0 + g1, g0 - g1, -g1; then the same downwards.
    F32 v[2];
    for (int i = 0; i < 2; ++i) {
      const F32 g0 = g[2 * i], g1 = g[2 * i + 1];
      v[i] = j == 0 ? g0 : j == 1 ? g0 + g1 : j == 2 ? g0 - g1 : -g1;
    }
    float* out = to + j * plane;
    store(out, v[0]);
    store(out + 4 * plane, v[0] + v[1]);
    store(out + 8 * plane, v[0] - v[1]);
    store(out + 12 * plane, -v[1]);
  }
}

// kMask: a fused relu; kPooled: dy is that of the pooled output.
template <bool kMask, bool kPooled>
void grad_typed(const WinogradGrad& a) {
  const WinogradTiles tiles = a.tiles;
  const int64_t plane = tiles.plane, dy_row = a.dy_row, dy_pixel = a.dy_pixel;
  // Tiles wholly inside.
  const int64_t whole = a.ow / 2 < tiles.columns ? a.ow / 2 : tiles.columns;
  each_vector(tiles, [&](int64_t c, int64_t offset) {
    float* to = a.to + offset;
    for (int64_t ty = tiles.first; ty < tiles.first + tiles.rows; ++ty) {
      F32 sum{};
      if constexpr (kPooled) {
        const bool inside = 2 * ty + 1 < a.oh;
        const float* dy = a.dy + ty * dy_row + c;
        const std::uint8_t* at = a.index + ty * dy_row + c;
        for (int64_t tx = 0; tx < tiles.columns; ++tx, to += kConvBlock) {
          F32 g[4] = {};
          if (inside && tx < whole) {
            const F32 value = load(dy + tx * dy_pixel);
            ConvBytes bytes;
            std::memcpy(&bytes, at + tx * dy_pixel, sizeof bytes);
            const I32 index = __builtin_convertvector(bytes, I32);
            for (int k = 0; k < 4; ++k) g[k] = index == k ? value : F32{};
            sum += index == 4 ? F32{} : value;
          }
          put_grad(g, to, plane);
        }
      } else {
        const bool below = 2 * ty + 1 < a.oh;
        const float* dy = a.dy + 2 * ty * dy_row + c;
        const float* mask = kMask ? a.mask + 2 * ty * dy_row + c : nullptr;
        for (int64_t tx = 0; tx < tiles.columns; ++tx, to += kConvBlock) {
          F32 g[4];
          for (int k = 0; k < 4; ++k) {
            g[k] = F32{};
            if ((k / 2 == 1 && !below) || (k % 2 == 1 && tx >= whole)) continue;
            const int64_t here = k / 2 * dy_row + (2 * tx + k % 2) * dy_pixel;
            g[k] = load(dy + here);
            if constexpr (kMask) g[k] = load(mask + here) > F32{} ? g[k] : F32{};
          }
          sum += (g[0] + g[1]) + (g[2] + g[3]);
          put_grad(g, to, plane);
        }
      }
      if (a.sums != nullptr)
        for (int i = 0; i < kWidth; ++i) a.sums[c + i] += static_cast<double>(sum[i]);
    }
  });
}

void grad(const WinogradGrad& a) {
  if (a.index != nullptr) return grad_typed<false, true>(a);
  if (a.mask != nullptr) return grad_typed<true, false>(a);
  grad_typed<false, false>(a);
}

template <bool kPooled>
void output_typed(const WinogradOutput& a) {
  const WinogradTiles tiles = a.tiles;
  const int64_t plane = tiles.plane, y_row = a.y_row, y_pixel = a.y_pixel;
  const bool relu = a.relu;
  for (int64_t ty = tiles.first; ty < tiles.first + tiles.rows; ++ty) {
    const bool below = 2 * ty + 1 < a.oh;
    float* y_at = a.y + (kPooled ? 1 : 2) * ty * y_row;
    std::uint8_t* index_at = kPooled ? a.index + ty * y_row : nullptr;
    for (int64_t tx = 0; tx < tiles.columns; ++tx) {
      const bool right = 2 * tx + 1 < a.ow;
      const float* m_at = a.m + ((ty - tiles.first) * tiles.columns + tx) * kConvBlock;
      if (kPooled && !(below && right)) continue;
      for (int64_t c = 0; c < tiles.channels; c += kWidth) {
        const float* m = m_at + c / kConvBlock * tiles.block + c % kConvBlock;
        F32 across[4][2];
        for (int i = 0; i < 4; ++i) {
          F32 v[4];
          for (int j = 0; j < 4; ++j) v[j] = load(m + (4 * i + j) * plane);
          across[i][0] = (v[0] + v[1]) + v[2];
          across[i][1] = (v[1] - v[2]) - v[3];
        }
        const F32 bias = a.bias != nullptr ? load(a.bias + c) : F32{};
        F32 y[4];
        for (int j = 0; j < 2; ++j) {
          y[j] = ((across[0][j] + across[1][j]) + across[2][j]) + bias;
          y[2 + j] = ((across[1][j] - across[2][j]) - across[3][j]) + bias;
        }
        if constexpr (kPooled) {
          I32 at;
          store(y_at + tx * y_pixel + c, pool_after_relu(y, at));
          const ConvBytes bytes = __builtin_convertvector(at, ConvBytes);
          std::memcpy(index_at + tx * y_pixel + c, &bytes, sizeof bytes);
        } else {
          float* to = y_at + 2 * tx * y_pixel + c;
          for (int k = 0; k < 4; ++k) {
            if ((k / 2 == 1 && !below) || (k % 2 == 1 && !right)) continue;
            store(to + k / 2 * y_row + k % 2 * y_pixel,
                  relu ? (y[k] < F32{} ? F32{} : y[k]) : y[k]);
          }
        }
      }
    }
  }
}

void output(const WinogradOutput& a) {
  if (a.index != nullptr) return output_typed<true>(a);
  output_typed<false>(a);
}

// One dimension of B m: the transpose of transform_input.
SG_HD void transform_input_back(const F32 (&m)[4], F32 (&d)[4]) {
  d[0] = m[0];
  d[1] = (m[1] - m[2]) + m[3];
  d[2] = (m[1] + m[2]) - m[0];
  d[3] = -m[3];
}

void input_grad(const WinogradInputGrad& a) {
  const WinogradTiles tiles = a.tiles;
  const int64_t plane = tiles.plane, h = a.h, w = a.w, dx_row = a.dx_row, dx_pixel = a.dx_pixel;
  float* const dx = a.dx;
  const int64_t carry_row = (2 * tiles.columns + 2) * kWidth;
  const auto emit = [&](int64_t y, int64_t x, int64_t c, F32 value) __attribute__((always_inline)) {
    if (y >= 0 && y < h && x >= 0 && x < w) store(dx + y * dx_row + x * dx_pixel + c, value);
  };
  for (int64_t c = 0; c < tiles.channels; c += kWidth) {
    float* carry = a.carry + c / kWidth * 2 * carry_row;
    const float* m = a.m + c / kConvBlock * tiles.block + c % kConvBlock;
    for (int64_t ty = tiles.first; ty < tiles.first + tiles.rows; ++ty) {
      const int64_t y = 2 * ty - a.top;
      const int64_t left = a.left;
      F32 keep[4][2] = {};  // what the tile to the left adds to the first two columns
      for (int64_t tx = 0; tx <= tiles.columns; ++tx) {
        F32 first[4][2];
        for (int i = 0; i < 4; ++i)
          for (int j = 0; j < 2; ++j) first[i][j] = keep[i][j];
        if (tx < tiles.columns) {
          F32 down[4][4];  // [column][row]
          for (int j = 0; j < 4; ++j) {
            F32 v[4];
            for (int i = 0; i < 4; ++i) v[i] = load(m + (4 * i + j) * plane);
            transform_input_back(v, down[j]);
          }
          m += kConvBlock;
          for (int i = 0; i < 4; ++i) {
            const F32 v[4] = {down[0][i], down[1][i], down[2][i], down[3][i]};
            F32 d[4];
            transform_input_back(v, d);
            first[i][0] += d[0];
            first[i][1] += d[1];
            keep[i][0] = d[2];
            keep[i][1] = d[3];
          }
        }
        for (int j = 0; j < 2; ++j) {
          const int64_t x = 2 * tx + j - left;
          for (int i = 0; i < 2; ++i) {
            float* above = carry + i * carry_row + (2 * tx + j) * kWidth;
            emit(y + i, x, c, load(above) + first[i][j]);
            store(above, first[i + 2][j]);
          }
        }
      }
    }
    if (!a.last) continue;
    const int64_t y = 2 * (tiles.first + tiles.rows) - a.top;
    for (int i = 0; i < 2; ++i)
      for (int64_t x = 0; x < 2 * tiles.columns + 2; ++x)
        emit(y + i, x - a.left, c, load(carry + i * carry_row + x * kWidth));
  }
}

}  // namespace

const WinogradTable& winograd_table() {
  static const WinogradTable table{&input,
                                   &grad,
                                   &output,
                                   &input_grad,
                                   &winograd_products,
                                   &winograd_sums,
                                   &winograd_filters,
                                   &winograd_filters_grad};
  return table;
}

}  // namespace sg::kernels::SG_ISA
