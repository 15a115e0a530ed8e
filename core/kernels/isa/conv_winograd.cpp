#include "core/kernels/conv_winograd.h"

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

void input(const WinogradInput& a) {
  const WinogradTiles& tiles = a.tiles;
  each_vector(tiles, [&](int64_t c, int64_t offset) {
    float* to = a.to + offset;
    for (int64_t ty = tiles.first; ty < tiles.first + tiles.rows; ++ty) {
      const int64_t y = 2 * ty - a.top;
      const float* row = a.x + y * a.x_row + c;
      const bool inside[4] = {y >= 0 && y < a.h, y + 1 >= 0 && y + 1 < a.h, y + 2 >= 0 && y + 2 < a.h,
                              y + 3 >= 0 && y + 3 < a.h};
      const bool whole = inside[0] && inside[3];
      // One column of a tile, transformed downwards.
      const auto column = [&](int64_t x, F32(&v)[4]) __attribute__((always_inline)) {
        F32 d[4] = {};
        if (x >= 0 && x < a.w) {
          const float* from = row + x * a.x_pixel;
          if (whole) {
            for (int i = 0; i < 4; ++i) d[i] = load(from + i * a.x_row);
          } else {
            for (int i = 0; i < 4; ++i)
              if (inside[i]) d[i] = load(from + i * a.x_row);
          }
        }
        transform_input(d, v);
      };
      // Neighbouring tiles share two columns.
      F32 v[4][4];  // [column][row]
      column(-a.left, v[0]);
      column(1 - a.left, v[1]);
      for (int64_t tx = 0; tx < tiles.columns; ++tx, to += kConvBlock) {
        column(2 * tx + 2 - a.left, v[2]);
        column(2 * tx + 3 - a.left, v[3]);
        for (int i = 0; i < 4; ++i) {
          float* out = to + 4 * i * tiles.plane;
          store(out, v[0][i] - v[2][i]);
          store(out + tiles.plane, v[1][i] + v[2][i]);
          store(out + 2 * tiles.plane, v[2][i] - v[1][i]);
          store(out + 3 * tiles.plane, v[1][i] - v[3][i]);
        }
        for (int i = 0; i < 4; ++i) {
          v[0][i] = v[2][i];
          v[1][i] = v[3][i];
        }
      }
    }
  });
}

void grad(const WinogradGrad& a) {
  const WinogradTiles& tiles = a.tiles;
  each_vector(tiles, [&](int64_t c, int64_t offset) {
    float* to = a.to + offset;
    for (int64_t ty = tiles.first; ty < tiles.first + tiles.rows; ++ty) {
      F32 sum{};
      for (int64_t tx = 0; tx < tiles.columns; ++tx, to += kConvBlock) {
        F32 g[2][2] = {};
        if (a.index != nullptr) {
          if (2 * ty + 1 < a.oh && 2 * tx + 1 < a.ow) {
            const int64_t at = ty * a.dy_row + tx * a.dy_pixel + c;
            const F32 value = load(a.dy + at);
            typedef std::uint8_t Bytes __attribute__((vector_size(kWidth)));
            Bytes bytes;
            std::memcpy(&bytes, a.index + at, sizeof bytes);
            const I32 index = __builtin_convertvector(bytes, I32);
            for (int k = 0; k < 4; ++k) g[k / 2][k % 2] = index == k ? value : F32{};
          }
        } else {
          const bool below = 2 * ty + 1 < a.oh, right = 2 * tx + 1 < a.ow;
          const int64_t at = 2 * ty * a.dy_row + 2 * tx * a.dy_pixel + c;
          for (int k = 0; k < 4; ++k) {
            if ((k / 2 == 1 && !below) || (k % 2 == 1 && !right)) continue;
            const int64_t here = at + k / 2 * a.dy_row + k % 2 * a.dy_pixel;
            F32 value = load(a.dy + here);
            if (a.mask != nullptr) value = load(a.mask + here) > F32{} ? value : F32{};
            g[k / 2][k % 2] = value;
          }
        }
        sum += (g[0][0] + g[0][1]) + (g[1][0] + g[1][1]);
        for (int j = 0; j < 4; ++j) {
          // Column j of dY A^T: g0, g0 + g1, g0 - g1, -g1; then the same downwards.
          F32 v[2];
          for (int i = 0; i < 2; ++i)
            v[i] = j == 0 ? g[i][0] : j == 1 ? g[i][0] + g[i][1] : j == 2 ? g[i][0] - g[i][1] : -g[i][1];
          float* out = to + j * tiles.plane;
          store(out, v[0]);
          store(out + 4 * tiles.plane, v[0] + v[1]);
          store(out + 8 * tiles.plane, v[0] - v[1]);
          store(out + 12 * tiles.plane, -v[1]);
        }
      }
      if (a.sums != nullptr)
        for (int i = 0; i < kWidth; ++i) a.sums[c + i] += static_cast<double>(sum[i]);
    }
  });
}

void output(const WinogradOutput& a) {
  const WinogradTiles& tiles = a.tiles;
  for (int64_t ty = tiles.first; ty < tiles.first + tiles.rows; ++ty)
    for (int64_t tx = 0; tx < tiles.columns; ++tx)
      for (int64_t c = 0; c < tiles.channels; c += kWidth) {
        const float* m = a.m + ((ty - tiles.first) * tiles.columns + tx) * a.m_pixel + c;
        F32 across[4][2];
        for (int i = 0; i < 4; ++i) {
          F32 v[4];
          for (int j = 0; j < 4; ++j) v[j] = load(m + (4 * i + j) * tiles.plane);
          across[i][0] = (v[0] + v[1]) + v[2];
          across[i][1] = (v[1] - v[2]) - v[3];
        }
        const F32 bias = a.bias != nullptr ? load(a.bias + c) : F32{};
        F32 y[4];
        for (int j = 0; j < 2; ++j) {
          y[j] = ((across[0][j] + across[1][j]) + across[2][j]) + bias;
          y[2 + j] = ((across[1][j] - across[2][j]) - across[3][j]) + bias;
        }
        if (a.index == nullptr) {
          for (int k = 0; k < 4; ++k) {
            const int64_t row = 2 * ty + k / 2, column = 2 * tx + k % 2;
            if (row >= a.oh || column >= a.ow) continue;
            const F32 value = a.relu ? (y[k] < F32{} ? F32{} : y[k]) : y[k];
            store(a.y + row * a.y_row + column * a.y_pixel + c, value);
          }
          continue;
        }
        if (2 * ty + 1 >= a.oh || 2 * tx + 1 >= a.ow) continue;
        I32 at;
        const F32 best = pool_after_relu(y, at);
        const int64_t offset = ty * a.y_row + tx * a.y_pixel + c;
        store(a.y + offset, best);
        typedef std::uint8_t Bytes __attribute__((vector_size(kWidth)));
        const Bytes bytes = __builtin_convertvector(at, Bytes);
        std::memcpy(a.index + offset, &bytes, sizeof bytes);
      }
}

// One dimension of B m: the transpose of transform_input.
SG_HD void transform_input_back(const F32 (&m)[4], F32 (&d)[4]) {
  d[0] = m[0];
  d[1] = (m[1] - m[2]) + m[3];
  d[2] = (m[1] + m[2]) - m[0];
  d[3] = -m[3];
}

void input_grad(const WinogradInputGrad& a) {
  const WinogradTiles& tiles = a.tiles;
  const int64_t carry_row = (2 * tiles.columns + 2) * kWidth;
  const auto emit = [&](int64_t y, int64_t x, int64_t c, F32 value) __attribute__((always_inline)) {
    if (y >= 0 && y < a.h && x >= 0 && x < a.w) store(a.dx + y * a.dx_row + x * a.dx_pixel + c, value);
  };
  for (int64_t c = 0; c < tiles.channels; c += kWidth) {
    float* carry = a.carry + c / kWidth * 2 * carry_row;
    const float* m = a.m + c;
    for (int64_t ty = tiles.first; ty < tiles.first + tiles.rows; ++ty) {
      const int64_t y = 2 * ty - a.top;
      F32 keep[4][2] = {};  // what the tile to the left adds to the first two columns
      for (int64_t tx = 0; tx <= tiles.columns; ++tx) {
        F32 left[4][2];
        for (int i = 0; i < 4; ++i)
          for (int j = 0; j < 2; ++j) left[i][j] = keep[i][j];
        if (tx < tiles.columns) {
          F32 down[4][4];  // [column][row]
          for (int j = 0; j < 4; ++j) {
            F32 v[4];
            for (int i = 0; i < 4; ++i) v[i] = load(m + (4 * i + j) * tiles.plane);
            transform_input_back(v, down[j]);
          }
          m += a.m_pixel;
          for (int i = 0; i < 4; ++i) {
            const F32 v[4] = {down[0][i], down[1][i], down[2][i], down[3][i]};
            F32 d[4];
            transform_input_back(v, d);
            left[i][0] += d[0];
            left[i][1] += d[1];
            keep[i][0] = d[2];
            keep[i][1] = d[3];
          }
        }
        for (int j = 0; j < 2; ++j) {
          const int64_t x = 2 * tx + j - a.left;
          for (int i = 0; i < 2; ++i) {
            float* above = carry + i * carry_row + (2 * tx + j) * kWidth;
            emit(y + i, x, c, load(above) + left[i][j]);
            store(above, left[i + 2][j]);
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

// One dimension of G g.
SG_HD void transform_filter(F32 g0, F32 g1, F32 g2, F32 (&u)[4]) {
  const F32 half = splat(0.5f), ends = (g0 + g2) * half, middle = g1 * half;
  u[0] = g0;
  u[1] = ends + middle;
  u[2] = ends - middle;
  u[3] = g2;
}

constexpr int64_t kTaps = 9;

void filters(const WinogradFilters& f, const float* from, int64_t first, int64_t last, float* to) {
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
        for (int j = 0; j < 3; ++j) transform_filter(load(g[j]), load(g[3 + j]), load(g[6 + j]), down[j]);
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

// One dimension of G^T s.
SG_HD void transform_filter_back(F32 s0, F32 s1, F32 s2, F32 s3, F32 (&g)[3]) {
  const F32 half = splat(0.5f), even = (s1 + s2) * half, odd = (s1 - s2) * half;
  g[0] = s0 + even;
  g[1] = odd;
  g[2] = even + s3;
}

void filters_grad(const WinogradFilters& f, const float* sums, int64_t first, int64_t last, float* dw) {
  const int64_t plane = f.lanes * f.channels;
  for (int64_t group = first; group < last;) {
    const int64_t width = f.lanes - group > kWidth ? 2 * kWidth : kWidth;
    for (int64_t c = 0; c < f.channels; ++c)
      for (int64_t l = 0; l < width; l += kWidth) {
        const float* s = sums + group * f.channels + c * width + l;
        F32 across[4][3];
        for (int i = 0; i < 4; ++i)
          transform_filter_back(load(s + 4 * i * plane), load(s + (4 * i + 1) * plane),
                                load(s + (4 * i + 2) * plane), load(s + (4 * i + 3) * plane), across[i]);
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

}  // namespace

const WinogradTable& winograd_table() {
  static const WinogradTable table{&input, &grad, &output, &input_grad, &filters, &filters_grad};
  return table;
}

}  // namespace sg::kernels::SG_ISA
