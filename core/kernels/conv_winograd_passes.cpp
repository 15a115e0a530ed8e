#include "core/kernels/conv_winograd_passes.h"

#include <vector>

#include "core/kernels/conv_passes.h"
#include "core/kernels/conv_winograd.h"
#include "core/parallel.h"

namespace sg::kernels {
namespace {

using std::int64_t;

// Tiles are computed in blocks: some rows of tiles of one image, or all of several small images.
struct Blocks {
  int64_t columns, rows;   // tiles of an image
  int64_t rows_together;   // rows of tiles in a block, if one image has more
  int64_t images;          // images in a block otherwise
  int64_t tiles;           // at most, in a block

  Blocks(const ConvGeometry& g, int64_t wanted)
      : columns(divide_up(g.ow, 2)), rows(divide_up(g.oh, 2)),
        rows_together(std::clamp<int64_t>(wanted / columns, 1, rows)),
        images(rows_together < rows ? 1 : std::clamp<int64_t>(wanted / (rows * columns), 1, g.n)),
        tiles(images * rows_together * columns) {}
  int64_t per_image() const { return divide_up(rows, rows_together); }
};

// Transformed tiles of one block. Planes are an odd number of cache lines apart: 16 of them are written at a time, and at
// a power of two they would share a set of the cache.
struct Planes {
  int64_t block, plane;
  Planes(int64_t tiles, int64_t channels) : block(tiles * kConvBlock), plane(tiles * channels + kConvBlock) {}
  int64_t size() const { return plane * kWinogradPositions; }
};

WinogradTiles tiles_of(const Planes& p, int64_t first, int64_t rows, int64_t columns, int64_t channels) {
  return {first, rows, columns, channels, p.plane, p.block};
}

// Filters of all lanes in parallel, groups being whole.
template <class F>
void each_lane_part(int64_t lanes, F&& f) {
  const int64_t width = Groups(lanes).width(0), groups = Groups(lanes).count();
  parallel_for(groups, 1, [&](int64_t begin, int64_t end) { f(begin * width, std::min(end * width, lanes)); });
}

// m [position][tile][lanes] = transformed inputs times filters, at every position.
void multiply(const float* from, const Planes& planes, int64_t channels, int64_t tiles, const float* filters,
              int64_t lanes, float* m, int64_t m_plane, Ahead& ahead) {
  const int64_t no_tap = 0;
  const Groups groups(lanes);
  for (int64_t p = 0; p < kWinogradPositions; ++p)
    groups.each([&](int64_t lane, int64_t width) {
      conv_direct().forward({.x = from + p * planes.plane, .row = 0, .step = kConvBlock, .taps = &no_tap,
                             .tap_count = 1, .blocks = channels / kConvBlock, .block_stride = planes.block,
                             .last_channels = kConvBlock, .w = filters + p * lanes * channels + lane * channels,
                             .bias = nullptr, .y = m + p * m_plane + lane, .y_row = 0, .y_pixel = lanes, .y_lane = 1,
                             .lanes = width, .rows = 1, .width = tiles, .relu = false, .next = ahead.slice(),
                             .index = nullptr});
    });
}

// sums [position][lane group][channel][lane] += inputs times gradients, over tiles.
void accumulate(const float* xs, const Planes& x_planes, int64_t channels, const float* dys,
                const Planes& dy_planes, int64_t lanes, int64_t tiles, float* sums, Ahead& ahead) {
  const Groups groups(lanes);
  for (int64_t p = 0; p < kWinogradPositions; ++p)
    groups.each([&](int64_t lane, int64_t width) {
      const int64_t vectors = width / groups.vector;
      const auto at = [&](int64_t l) { return l / kConvBlock * dy_planes.block + l % kConvBlock; };
      const int64_t pieces = divide_up(kConvBlock, conv_direct().longest_run[vectors - 1]);
      for (int64_t c = 0; c < channels; c += kConvBlock)
        for (int64_t piece = 0; piece < pieces; ++piece) {
          const int64_t first = kConvBlock * piece / pieces, last = kConvBlock * (piece + 1) / pieces;
          conv_direct().weight(
              {.x = xs + p * x_planes.plane + c / kConvBlock * x_planes.block + first, .x_pixel = kConvBlock,
               .x_row = 0, .x_image = 0, .dy = dys + p * dy_planes.plane + at(lane), .dy_pixel = kConvBlock,
               .dy_row = 0, .dy_image = 0, .dy_vector = at(lane + groups.vector) - at(lane), .images = 1,
               .rows = 1, .width = tiles, .next = ahead.slice(), .run = last - first, .vectors = vectors,
               .dw = sums + p * lanes * channels + lane * channels + (c + first) * width});
        }
    });
}

}  // namespace

bool conv_winograd_supports(const ConvGeometry& g) {
  return g.kh == 3 && g.kw == 3 && g.sh == 1 && g.sw == 1 && g.dh == 1 && g.dw == 1 && g.groups == 1 &&
         g.c % kConvBlock == 0 && g.o % kConvBlock == 0 && g.c > 0 && g.o > 0;
}

void conv_winograd_forward(const ConvGeometry& g, ImageView<const float> x, const float* weight,
                           const float* bias, bool relu, ImageView<float> y, std::uint8_t* index) {
  constexpr int64_t kTiles = 64;
  const Blocks blocks(g, kTiles);
  const Planes planes(blocks.tiles, g.c), m_planes(blocks.tiles, g.o);
  const Tensor filters = scratch(kWinogradPositions * g.o * g.c);
  each_lane_part(g.o, [&](int64_t first, int64_t last) {
    winograd().filters({g.c * 9, 9, g.o, g.c}, weight, first, last, filters.data<float>());
  });

  // A unit is a block of one image, or a block of images.
  const int64_t per_image = blocks.per_image();
  const int64_t units = per_image > 1 ? g.n * per_image : divide_up(g.n, blocks.images);
  const int64_t parts = std::min<int64_t>(current_rank().threads, units);
  const int64_t size = planes.size() + m_planes.size();
  const Tensor buffer = scratch(parts * size);
  parallel_for(parts, 1, [&](int64_t first_part, int64_t last_part) {
    for (int64_t part = first_part; part < last_part; ++part) {
      float* v = buffer.data<float>() + part * size;
      float* m = v + planes.size();
      for (int64_t unit = units * part / parts; unit < units * (part + 1) / parts; ++unit) {
        const int64_t n = per_image > 1 ? unit / per_image : unit * blocks.images;
        const int64_t row = per_image > 1 ? unit % per_image * blocks.rows_together : 0;
        const int64_t rows = std::min(blocks.rows_together, blocks.rows - row);
        const int64_t images = std::min(blocks.images, g.n - n), tiles = rows * blocks.columns;
        for (int64_t k = 0; k < images; ++k)
          winograd().input({tiles_of(planes, row, rows, blocks.columns, g.c), x.image(n + k), x.sy, x.sx, g.h, g.w,
                            g.ph, g.pw, v + k * tiles * kConvBlock});
        Ahead ahead(g.n, kWinogradPositions * Groups(g.o).count());
        multiply(v, planes, g.c, images * tiles, filters.data<float>(), g.o, m, m_planes.plane, ahead);
        for (int64_t k = 0; k < images; ++k)
          winograd().output({tiles_of(m_planes, row, rows, blocks.columns, g.o), m + k * tiles * g.o, g.o, bias,
                             relu, y.image(n + k), y.sy, y.sx, g.oh, g.ow,
                             index != nullptr ? index + (n + k) * y.sn : nullptr});
      }
    }
  });
}

void conv_winograd_backward(const ConvGeometry& g, ImageView<const float> dy, const float* mask,
                            const std::uint8_t* index, ImageView<const float> x, const float* weight,
                            const ConvGradients& grads) {
  constexpr int64_t kTiles = 64;
  const bool wants_x = grads.dx.data != nullptr, wants_w = grads.dw != nullptr;
  const Blocks blocks(g, kTiles);
  const Planes dy_planes(blocks.tiles, g.o), x_planes(blocks.tiles, g.c);
  const int64_t filter_size = kWinogradPositions * g.o * g.c;
  const Tensor filters = scratch(wants_x ? filter_size : 0);
  if (wants_x)
    each_lane_part(g.c, [&](int64_t first, int64_t last) {
      winograd().filters({9, g.c * 9, g.c, g.o}, weight, first, last, filters.data<float>());
    });

  const int64_t parts = std::min<int64_t>(current_rank().threads, g.n);
  const int64_t carry_size = 2 * (2 * blocks.columns + 2) * g.c;
  // The transformed input is used up before the products for dx are written to the same place.
  const int64_t size = dy_planes.size() + x_planes.size() + carry_size;
  const Tensor buffer = scratch(parts * size);
  const Tensor sums = scratch(wants_w ? parts * filter_size : 0);
  std::vector<double> bias_sums(static_cast<std::size_t>(parts * g.o));
  parallel_for(parts, 1, [&](int64_t first_part, int64_t last_part) {
    for (int64_t part = first_part; part < last_part; ++part) {
      float* d = buffer.data<float>() + part * size;
      float* v = d + dy_planes.size();
      float* carry = v + x_planes.size();
      float* sum = sums.data<float>() + part * filter_size;
      if (wants_w) std::fill(sum, sum + filter_size, 0.0f);
      double* bias_sum = grads.db != nullptr ? bias_sums.data() + part * g.o : nullptr;
      const int64_t last = g.n * (part + 1) / parts;
      for (int64_t n = g.n * part / parts; n < last; n += blocks.images)
        for (int64_t row = 0; row < blocks.rows; row += blocks.rows_together) {
          const int64_t rows = std::min(blocks.rows_together, blocks.rows - row);
          const int64_t images = std::min(blocks.images, last - n), tiles = rows * blocks.columns;
          for (int64_t k = 0; k < images; ++k)
            winograd().grad({tiles_of(dy_planes, row, rows, blocks.columns, g.o), dy.image(n + k), dy.sy, dy.sx,
                             g.oh, g.ow, mask != nullptr ? mask + (n + k) * dy.sn : nullptr,
                             index != nullptr ? index + (n + k) * dy.sn : nullptr, bias_sum,
                             d + k * tiles * kConvBlock});
          if (wants_w) {
            for (int64_t k = 0; k < images; ++k)
              winograd().input({tiles_of(x_planes, row, rows, blocks.columns, g.c), x.image(n + k), x.sy, x.sx,
                                g.h, g.w, g.ph, g.pw, v + k * tiles * kConvBlock});
            Ahead ahead(last, kWinogradPositions);
            accumulate(v, x_planes, g.c, d, dy_planes, g.o, images * tiles, sum, ahead);
          }
          if (!wants_x) continue;
          Ahead ahead(last, kWinogradPositions * Groups(g.c).count());
          multiply(d, dy_planes, g.o, images * tiles, filters.data<float>(), g.c, v, x_planes.plane, ahead);
          for (int64_t k = 0; k < images; ++k) {
            if (row == 0) std::fill(carry, carry + carry_size, 0.0f);
            winograd().input_grad({tiles_of(x_planes, row, rows, blocks.columns, g.c), v + k * tiles * g.c, g.c,
                                   grads.dx.image(n + k), grads.dx.sy, grads.dx.sx, g.h, g.w, g.ph, g.pw, carry,
                                   row + rows == blocks.rows});
          }
        }
    }
  });

  if (wants_w) {
    float* total = sums.data<float>();
    parallel_for(filter_size, 1 << 13, [&](int64_t begin, int64_t end) {
      for (int64_t part = 1; part < parts; ++part)
        for (int64_t i = begin; i < end; ++i) total[i] += total[part * filter_size + i];
    });
    each_lane_part(g.o, [&](int64_t first, int64_t last) {
      winograd().filters_grad({g.c * 9, 9, g.o, g.c}, total, first, last, grads.dw);
    });
  }
  if (grads.db == nullptr) return;
  for (int64_t o = 0; o < g.o; ++o) {
    double total = 0;
    for (int64_t part = 0; part < parts; ++part) total += bias_sums[static_cast<std::size_t>(part * g.o + o)];
    grads.db[o] = static_cast<float>(total);
  }
}

}  // namespace sg::kernels
