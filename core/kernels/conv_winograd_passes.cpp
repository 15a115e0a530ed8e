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
  int64_t columns, rows;  // tiles of an image
  int64_t rows_together;  // rows of tiles in a block, if one image has more
  int64_t images;         // images in a block otherwise
  int64_t tiles;          // at most, in a block

  Blocks(const ConvGeometry& g, int64_t wanted)
      : columns(divide_up(g.ow, 2)),
        rows(divide_up(g.oh, 2)),
        rows_together(std::clamp<int64_t>(wanted / columns, 1, rows)),
        images(rows_together < rows ? 1 : std::clamp<int64_t>(wanted / (rows * columns), 1, g.n)),
        tiles(images * rows_together * columns) {}
  int64_t per_image() const { return divide_up(rows, rows_together); }
};

// Transformed tiles of one block. Planes are an odd number of cache lines apart: 16 of them are
// written at a time, and at a power of two they would share a set of the cache.
struct Planes {
  int64_t block, plane;
  Planes(int64_t tiles, int64_t channels)
      : block(tiles * kConvBlock), plane(tiles * channels + kConvBlock) {}
  int64_t size() const { return plane * kWinogradPositions; }
  WinogradTiles tiles(int64_t first, int64_t rows, int64_t columns, int64_t channels) const {
    return {first, rows, columns, channels, plane, block};
  }
};

// Filters of all lanes in parallel, groups being whole.
template <class F>
void each_lane_part(int64_t lanes, F&& f) {
  const int64_t width = Groups(lanes).width(0), groups = Groups(lanes).count();
  parallel_for(groups, 1,
               [&](int64_t begin, int64_t end) { f(begin * width, std::min(end * width, lanes)); });
}

}  // namespace

bool conv_winograd_supports(const ConvGeometry& g) {
  return g.kh == 3 && g.kw == 3 && g.sh == 1 && g.sw == 1 && g.dh == 1 && g.dw == 1 &&
         g.groups == 1 && g.c % kConvBlock == 0 && g.o % kConvBlock == 0 && g.c > 0 && g.o > 0;
}

void conv_winograd_forward(const ConvGeometry& g, ImageView<const float> x, const float* weight,
                           const float* bias, bool relu, ImageView<float> y, std::uint8_t* index) {
  // Products take the place of the transformed input of the position before them, so that with few
  // channels a block of tiles stays in the first-level cache.
  const int64_t widest = std::max(g.c, g.o);
  const Blocks blocks(g, widest < 128 ? std::max<int64_t>(256 / widest, 8) : 16);
  const Planes planes(blocks.tiles, widest);
  const Tensor filters = scratch(kWinogradPositions * g.o * g.c);
  each_lane_part(g.o, [&](int64_t first, int64_t last) {
    winograd().filters({g.c * 9, 9, g.o, g.c}, weight, first, last, filters.data<float>());
  });

  // A unit is a block of one image, or a block of images.
  const int64_t per_image = blocks.per_image();
  const int64_t units = per_image > 1 ? g.n * per_image : divide_up(g.n, blocks.images);
  const int64_t parts = std::min<int64_t>(current_rank().threads, units);
  const int64_t size = planes.size() + planes.plane;
  const Tensor buffer = scratch(parts * size);
  parallel_for(parts, 1, [&](int64_t first_part, int64_t last_part) {
    for (int64_t part = first_part; part < last_part; ++part) {
      float* m = buffer.data<float>() + part * size;
      float* v = m + planes.plane;
      for (int64_t unit = units * part / parts; unit < units * (part + 1) / parts; ++unit) {
        const int64_t n = per_image > 1 ? unit / per_image : unit * blocks.images;
        const int64_t row = per_image > 1 ? unit % per_image * blocks.rows_together : 0;
        const int64_t rows = std::min(blocks.rows_together, blocks.rows - row);
        const int64_t images = std::min(blocks.images, g.n - n), tiles = rows * blocks.columns;
        for (int64_t k = 0; k < images; ++k)
          winograd().input({planes.tiles(row, rows, blocks.columns, g.c), x.image(n + k), x.sy,
                            x.sx, g.h, g.w, g.ph, g.pw, v + k * tiles * kConvBlock});
        winograd().products({0, kWinogradPositions, images * tiles, v, planes.plane, planes.block,
                             g.c, filters.data<float>(), g.o, m, planes.plane, planes.block});
        for (int64_t k = 0; k < images; ++k)
          winograd().output({planes.tiles(row, rows, blocks.columns, g.o),
                             m + k * tiles * kConvBlock, bias, relu, y.image(n + k), y.sy, y.sx,
                             g.oh, g.ow, index != nullptr ? index + (n + k) * y.sn : nullptr});
      }
    }
  });
}

void conv_winograd_backward(const ConvGeometry& g, ImageView<const float> dy, const float* mask,
                            const std::uint8_t* index, ImageView<const float> x,
                            const float* weight, const ConvGradients& grads) {
  constexpr int64_t kTiles = 64;  // that are summed before the sums in memory are read and written
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
            winograd().grad({dy_planes.tiles(row, rows, blocks.columns, g.o), dy.image(n + k),
                             dy.sy, dy.sx, g.oh, g.ow,
                             mask != nullptr ? mask + (n + k) * dy.sn : nullptr,
                             index != nullptr ? index + (n + k) * dy.sn : nullptr, bias_sum,
                             d + k * tiles * kConvBlock});
          if (wants_w) {
            for (int64_t k = 0; k < images; ++k)
              winograd().input({x_planes.tiles(row, rows, blocks.columns, g.c), x.image(n + k),
                                x.sy, x.sx, g.h, g.w, g.ph, g.pw, v + k * tiles * kConvBlock});
          }
          // Products for dx take the place of the transformed input, which is used up at each
          // position.
          for (int64_t p = 0; p < kWinogradPositions; ++p) {
            if (wants_w)
              winograd().sums({p, p + 1, images * tiles, v, x_planes.plane, x_planes.block, g.c, d,
                               dy_planes.plane, dy_planes.block, g.o, sum});
            if (wants_x)
              winograd().products({p, p + 1, images * tiles, d, dy_planes.plane, dy_planes.block,
                                   g.o, filters.data<float>(), g.c, v, x_planes.plane,
                                   x_planes.block});
          }
          if (!wants_x) continue;
          for (int64_t k = 0; k < images; ++k) {
            if (row == 0) std::fill(carry, carry + carry_size, 0.0f);
            winograd().input_grad({x_planes.tiles(row, rows, blocks.columns, g.c),
                                   v + k * tiles * kConvBlock, grads.dx.image(n + k), grads.dx.sy,
                                   grads.dx.sx, g.h, g.w, g.ph, g.pw, carry,
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
  if (grads.db != nullptr) add_parts(bias_sums, g.o, grads.db);
}

}  // namespace sg::kernels
