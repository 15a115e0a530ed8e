#include "core/kernels/conv_direct_passes.h"

#include <vector>

#include "core/kernels/conv_passes.h"
#include "core/parallel.h"

namespace sg::kernels {
namespace {

using std::int64_t;

// A 1x1 kernel skips pixels: a convolution of stride 1 over the pixels that it sees.
bool skips_pixels(const ConvGeometry& g) {
  return g.kh == 1 && g.kw == 1 && g.ph == 0 && g.pw == 0 && (g.sh > 1 || g.sw > 1);
}

template <class T>
void skip_pixels(ConvGeometry& g, ImageView<T>& x) {
  x.sy *= g.sh;
  x.sx *= g.sw;
  g.h = g.oh;
  g.w = g.ow;
  g.sh = g.sw = 1;
}

// One group of a grouped convolution as a convolution of its own.
ConvGeometry one_group(ConvGeometry g) {
  g.c /= g.groups;
  g.o /= g.groups;
  g.groups = 1;
  return g;
}

int64_t block_of(int64_t channels) { return channels < kConvBlock ? 1 : kConvBlock; }

struct Window {  // a packed image
  int64_t rows, columns, channels, block;
  int64_t size() const { return divide_up(channels, block) * rows * columns * block; }
  int64_t block_stride() const { return rows * columns * block; }
};

int64_t last_channels(int64_t channels) {
  return channels - (divide_up(channels, kConvBlock) - 1) * kConvBlock;
}

// Rows of output that are computed from one packed piece of an image: all of them, unless that
// leaves the second-level cache or threads without work. Results do not depend on it.
int64_t band_rows(const ConvGeometry& g, int64_t rows, int64_t columns, int64_t unit) {
  constexpr int64_t kFloats = 192 * 1024;
  const int64_t row = columns * std::max<int64_t>(g.c, 1) * g.sh * unit;
  int64_t band = std::clamp<int64_t>(kFloats / std::max<int64_t>(row, 1), 1, rows);
  const int64_t threads = current_rank().threads;
  if (g.n < threads) band = std::min(band, divide_up(rows, divide_up(threads, g.n)));
  return std::max<int64_t>(band, 1);
}

void forward_group(const ConvGeometry& g, ImageView<const float> x, const float* weight,
                   const float* bias, bool relu, ImageView<float> y, std::uint8_t* index) {
  const Groups groups(g.o);
  const int64_t unit = index != nullptr ? 2 : 1;  // rows and columns that make one of y
  const int64_t rows = g.oh / unit, width = g.ow / unit;
  const int64_t block = block_of(g.c), taps = g.kh * g.kw;
  const bool planes = block == 1;
  // Row-major images without padding need no packing: planes lie as they are.
  const bool in_place = planes && g.ph == 0 && g.pw == 0 && x.sx == 1;

  std::vector<int64_t> weight_taps;
  for (int64_t t = 0; t < (planes ? g.c * taps : taps); ++t) weight_taps.push_back(t);
  const Tensor packed = scratch(groups.padded() * g.c * taps);
  conv_direct().pack_weights({.from = weight,
                              .sl = g.c * taps,
                              .sc = planes ? 0 : taps,
                              .lanes = g.o,
                              .channels = planes ? 1 : g.c,
                              .taps = weight_taps.data(),
                              .tap_count = static_cast<int64_t>(weight_taps.size()),
                              .block = block,
                              .to = packed.data<float>()});
  const Tensor padded_bias = scratch(groups.padded());
  if (bias != nullptr) {
    padded_bias.fill(0);
    std::copy(bias, bias + g.o, padded_bias.data<float>());
  }

  const int64_t columns = (g.ow - 1) * g.sw + (g.kw - 1) * g.dw + 1;
  const int64_t band = in_place ? (g.n < current_rank().threads
                                       ? divide_up(rows, divide_up(current_rank().threads, g.n))
                                       : rows)
                                : band_rows(g, rows, columns, unit);
  const Window window{(band * unit - 1) * g.sh + (g.kh - 1) * g.dh + 1, columns, g.c, block};
  // Where each tap's patch begins in an image.
  const int64_t row_stride = in_place ? x.sy : columns * block;
  const int64_t plane_stride = in_place ? x.sc : window.block_stride();
  std::vector<int64_t> offsets;
  for (int64_t c = 0; c < (planes ? g.c : 1); ++c)
    for (int64_t i = 0; i < g.kh; ++i)
      for (int64_t j = 0; j < g.kw; ++j)
        offsets.push_back(c * plane_stride + i * g.dh * row_stride + j * g.dw * block);

  const int64_t bands = divide_up(rows, band),
                parts = std::min<int64_t>(current_rank().threads, g.n * bands);
  const Tensor images = scratch(in_place ? 0 : parts * window.size());
  parallel_for(parts, 1, [&](int64_t first_part, int64_t last_part) {
    for (int64_t part = first_part; part < last_part; ++part)
      for (int64_t i = g.n * bands * part / parts; i < g.n * bands * (part + 1) / parts; ++i) {
        const int64_t n = i / bands, first = i % bands * band, count = std::min(band, rows - first);
        const float* image = x.image(n) + first * unit * g.sh * x.sy;
        if (!in_place) {
          float* to = images.data<float>() + part * window.size();
          conv_direct().pack_image({.from = x.image(n),
                                    .sc = x.sc,
                                    .sy = x.sy,
                                    .sx = x.sx,
                                    .channels = g.c,
                                    .h = g.h,
                                    .w = g.w,
                                    .top = first * unit * g.sh - g.ph,
                                    .left = -g.pw,
                                    .rows = window.rows,
                                    .columns = columns,
                                    .block = block,
                                    .to = to});
          image = to;
        }
        Ahead ahead(bands == 1 ? g.n * (part + 1) / parts : 0, groups.count());
        ahead.add(x, n + 1, g.c, g.h, g.w);
        groups.each([&](int64_t lane, int64_t lanes) {
          const int64_t at = n * y.sn + lane * y.sc + first * y.sy;
          conv_direct().forward(
              {.x = image,
               .row = g.sh * row_stride,
               .step = static_cast<int>(g.sw * block),
               .taps = offsets.data(),
               .tap_count = static_cast<int64_t>(offsets.size()),
               .blocks = divide_up(g.c, kConvBlock),
               .block_stride = window.block_stride(),
               .last_channels = last_channels(g.c),
               .w = packed.data<float>() + lane * g.c * taps,
               .bias = bias != nullptr ? padded_bias.data<float>() + lane : nullptr,
               .y = y.data + at,
               .y_row = y.sy,
               .y_pixel = y.sx,
               .y_lane = y.sc,
               .lanes = std::min(lanes, g.o - lane),
               .rows = count,
               .width = width,
               .relu = relu,
               .next = ahead.slice(),
               .index = index != nullptr ? index + at : nullptr});
        });
      }
  });
}

// The pixels of dx that one phase of the stride reaches: rows first + k * stride, and the taps that
// reach them.
struct Phase {
  int64_t row, column, rows, columns;
  std::vector<int64_t> down, right;  // where each tap reads, in rows and columns of dy
  std::vector<int64_t> weight_taps, offsets;
  int64_t packed = 0;  // where its weights begin
};

struct InputPass {
  std::vector<Phase> phases;
  int64_t above = 0, below = 0, left = 0, right = 0;  // padding of dy that the taps read

  explicit InputPass(const ConvGeometry& g) {
    for (int64_t py = 0; py < std::min(g.sh, g.h); ++py)
      for (int64_t px = 0; px < std::min(g.sw, g.w); ++px) {
        Phase p{py, px, divide_up(g.h - py, g.sh), divide_up(g.w - px, g.sw), {}, {}, {}, {}, 0};
        for (int64_t i = 0; i < g.kh; ++i)
          for (int64_t j = 0; j < g.kw; ++j) {
            const int64_t y = py + g.ph - i * g.dh, x = px + g.pw - j * g.dw;
            if (y % g.sh != 0 || x % g.sw != 0) continue;
            p.down.push_back(y / g.sh);
            p.right.push_back(x / g.sw);
            p.weight_taps.push_back(i * g.kw + j);
            above = std::max(above, -y / g.sh);
            left = std::max(left, -x / g.sw);
            below = std::max(below, p.rows - 1 + y / g.sh - (g.oh - 1));
            right = std::max(right, p.columns - 1 + x / g.sw - (g.ow - 1));
          }
        phases.push_back(std::move(p));
      }
  }

  void place(int64_t columns) {
    for (Phase& p : phases)
      for (std::size_t t = 0; t < p.down.size(); ++t)
        p.offsets.push_back(((p.down[t] + above) * columns + p.right[t] + left) * kConvBlock);
  }

  // Weights of all phases, lanes being input channels.
  Tensor pack(const ConvGeometry& g, const float* weight) {
    const Groups groups(g.c);
    const Tensor packed = scratch(groups.padded() * g.o * g.kh * g.kw);
    int64_t at = 0;
    for (Phase& p : phases) {
      const int64_t taps = static_cast<int64_t>(p.weight_taps.size());
      p.packed = at;
      conv_direct().pack_weights({.from = weight,
                                  .sl = g.kh * g.kw,
                                  .sc = g.c * g.kh * g.kw,
                                  .lanes = g.c,
                                  .channels = g.o,
                                  .taps = p.weight_taps.data(),
                                  .tap_count = taps,
                                  .block = kConvBlock,
                                  .to = packed.data<float>() + at});
      at += groups.padded() * g.o * taps;
    }
    return packed;
  }

  void run(const ConvGeometry& g, const Window& window, const float* dy, const float* packed,
           ImageView<float> dx, float* image, Ahead& ahead) const {
    const Groups groups(g.c);
    for (const Phase& p : phases) {
      const int64_t taps = static_cast<int64_t>(p.offsets.size());
      groups.each([&](int64_t lane, int64_t lanes) {
        conv_direct().forward({.x = dy,
                               .row = window.columns * kConvBlock,
                               .step = kConvBlock,
                               .taps = p.offsets.data(),
                               .tap_count = taps,
                               .blocks = divide_up(g.o, kConvBlock),
                               .block_stride = window.block_stride(),
                               .last_channels = last_channels(g.o),
                               .w = packed + p.packed + lane * g.o * taps,
                               .bias = nullptr,
                               .y = image + lane * dx.sc + p.row * dx.sy + p.column * dx.sx,
                               .y_row = g.sh * dx.sy,
                               .y_pixel = g.sw * dx.sx,
                               .y_lane = dx.sc,
                               .lanes = std::min(lanes, g.c - lane),
                               .rows = p.rows,
                               .width = p.columns,
                               .relu = false,
                               .next = ahead.slice(),
                               .index = nullptr});
      });
    }
  }
};

// Neighbouring values of a packed input that one call of the weight loop multiplies.
struct Run {
  int64_t x, length,
      element;  // offset in the packed image; index of the first weight in `WeightPass::weight_at`
};

struct WeightPass {
  Window window;                   // of x
  std::vector<Run> runs[2];        // for groups of one vector and of two
  std::vector<int64_t> weight_at;  // position in [c, kh, kw] of each element of the sums
  int64_t pixel = 0;

  WeightPass(const ConvGeometry& g) : window{} {
    // Few channels are packed pixel by pixel, so that a row of a patch is one run.
    window = {(g.oh - 1) * g.sh + (g.kh - 1) * g.dh + 1, (g.ow - 1) * g.sw + (g.kw - 1) * g.dw + 1,
              g.c, std::min(g.c, kConvBlock)};
    pixel = window.block;
    const bool joined = g.c <= kConvBlock && g.dw == 1;
    for (int64_t b = 0; b < divide_up(g.c, window.block); ++b)
      for (int64_t i = 0; i < g.kh; ++i)
        for (int64_t j = 0; j < (joined ? 1 : g.kw); ++j) {
          const int64_t channels = std::min(window.block, g.c - b * window.block);
          const int64_t length = channels * (joined ? g.kw : 1);
          const int64_t x =
              b * window.block_stride() + (i * g.dh * window.columns + j * g.dw) * pixel;
          const int64_t element = static_cast<int64_t>(weight_at.size());
          for (int vectors = 1; vectors <= 2; ++vectors) {
            const int64_t pieces = divide_up(length, conv_direct().longest_run[vectors - 1]);
            for (int64_t p = 0; p < pieces; ++p) {
              const int64_t first = length * p / pieces, last = length * (p + 1) / pieces;
              runs[vectors - 1].push_back({x + first, last - first, element + first});
            }
          }
          for (int64_t e = 0; e < length; ++e) {
            const int64_t c = b * window.block + e % channels, column = joined ? e / channels : j;
            weight_at.push_back((c * g.kh + i) * g.kw + column);
          }
        }
  }
};

// Images whose pixels are summed in registers before the sums go to memory.
int64_t images_together(const ConvGeometry& g) {
  constexpr int64_t kPixels = 256;
  return std::clamp<int64_t>(kPixels / std::max<int64_t>(g.oh * g.ow, 1), 1, 8);
}

void backward_group(const ConvGeometry& g, ImageView<const float> dy, const float* mask,
                    ImageView<const float> x, const float* weight, const ConvGradients& grads) {
  const bool wants_x = grads.dx.data != nullptr, wants_w = grads.dw != nullptr;
  const Groups groups(g.o);
  InputPass input(wants_x ? g : ConvGeometry{});
  const Window dy_window{g.oh + input.above + input.below, g.ow + input.left + input.right, g.o,
                         kConvBlock};
  input.place(dy_window.columns);
  const Tensor packed = wants_x ? input.pack(g, weight) : Tensor();

  const WeightPass pass(g);
  const int64_t elements = wants_w ? static_cast<int64_t>(pass.weight_at.size()) : 0;
  const int64_t together = wants_w ? images_together(g) : 1;
  const int64_t parts = std::min<int64_t>(current_rank().threads, g.n);
  const int64_t x_size = wants_w ? pass.window.size() : 0, dy_size = dy_window.size();
  const int64_t sums_size = elements * groups.padded();
  const Tensor images = scratch(parts * together * (x_size + dy_size));
  const Tensor sums = scratch(parts * sums_size);
  std::vector<double> bias_sums(static_cast<std::size_t>(parts * g.o));

  parallel_for(parts, 1, [&](int64_t first_part, int64_t last_part) {
    for (int64_t part = first_part; part < last_part; ++part) {
      float* dys = images.data<float>() + part * together * (x_size + dy_size);
      float* xs = dys + together * dy_size;
      float* sum = sums.data<float>() + part * sums_size;
      std::fill(sum, sum + sums_size, 0.0f);
      const int64_t last = g.n * (part + 1) / parts;
      for (int64_t n = g.n * part / parts; n < last; n += together) {
        const int64_t count = std::min(together, last - n);
        for (int64_t k = 0; k < count; ++k) {
          conv_direct().pack_image(
              {.from = dy.image(n + k),
               .sc = dy.sc,
               .sy = dy.sy,
               .sx = dy.sx,
               .channels = g.o,
               .h = g.oh,
               .w = g.ow,
               .top = -input.above,
               .left = -input.left,
               .rows = dy_window.rows,
               .columns = dy_window.columns,
               .block = kConvBlock,
               .to = dys + k * dy_size,
               .mask = mask != nullptr ? mask + (n + k) * dy.sn : nullptr,
               .sums = grads.db != nullptr ? bias_sums.data() + part * g.o : nullptr});
          if (wants_w)
            conv_direct().pack_image({.from = x.image(n + k),
                                      .sc = x.sc,
                                      .sy = x.sy,
                                      .sx = x.sx,
                                      .channels = g.c,
                                      .h = g.h,
                                      .w = g.w,
                                      .top = -g.ph,
                                      .left = -g.pw,
                                      .rows = pass.window.rows,
                                      .columns = pass.window.columns,
                                      .block = pass.window.block,
                                      .to = xs + k * x_size});
          if (!wants_x) continue;
          Ahead ahead(last, static_cast<int64_t>(input.phases.size()) * Groups(g.c).count());
          ahead.add(dy, n + k + 1, g.o, g.oh, g.ow);
          if (mask != nullptr)
            ahead.add({mask, dy.sn, dy.sc, dy.sy, dy.sx}, n + k + 1, g.o, g.oh, g.ow);
          if (wants_w) ahead.add(x, n + k + 1, g.c, g.h, g.w);
          input.run(g, dy_window, dys + k * dy_size, packed.data<float>(), grads.dx,
                    grads.dx.image(n + k), ahead);
        }
        if (!wants_w) continue;
        const float* inside = dys + (input.above * dy_window.columns + input.left) * kConvBlock;
        groups.each([&](int64_t lane, int64_t lanes) {
          const int64_t vectors = lanes / groups.vector;
          const auto lane_at = [&](int64_t l) {
            return l / kConvBlock * dy_window.block_stride() + l % kConvBlock;
          };
          for (const Run& run : pass.runs[vectors - 1])
            conv_direct().weight({.x = xs + run.x,
                                  .x_pixel = g.sw * pass.pixel,
                                  .x_row = g.sh * pass.window.columns * pass.pixel,
                                  .x_image = x_size,
                                  .dy = inside + lane_at(lane),
                                  .dy_pixel = kConvBlock,
                                  .dy_row = dy_window.columns * kConvBlock,
                                  .dy_image = dy_size,
                                  .dy_vector = lane_at(lane + groups.vector) - lane_at(lane),
                                  .images = count,
                                  .rows = g.oh,
                                  .width = g.ow,
                                  .next = {},
                                  .run = run.length,
                                  .vectors = vectors,
                                  .dw = sum + lane * elements + run.element * lanes});
        });
      }
    }
  });

  if (wants_w)
    groups.each([&](int64_t lane, int64_t lanes) {
      const float* from = sums.data<float>() + lane * elements;
      parallel_for(std::min(lanes, g.o - lane), 4, [&](int64_t begin, int64_t end) {
        for (int64_t l = begin; l < end; ++l)
          for (int64_t e = 0; e < elements; ++e) {
            float total = from[e * lanes + l];
            for (int64_t part = 1; part < parts; ++part)
              total += from[part * sums_size + e * lanes + l];
            grads.dw[(lane + l) * elements + pass.weight_at[static_cast<std::size_t>(e)]] = total;
          }
      });
    });
  if (grads.db != nullptr) add_parts(bias_sums, g.o, grads.db);
}

// A kernel of 1x1 with a stride leaves pixels of dx that nothing reaches.
void zero_image(const ConvGeometry& g, ImageView<float> dx) {
  parallel_for(g.n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      for (int64_t y = 0; y < g.h; ++y)
        for (int64_t x = 0; x < g.w; ++x)
          for (int64_t c = 0; c < g.c; ++c) dx.image(n)[c * dx.sc + y * dx.sy + x * dx.sx] = 0;
  });
}

}  // namespace

bool conv_direct_supports(const ConvGeometry& g) { return g.sw <= 2 || skips_pixels(g); }

void conv_direct_forward(const ConvGeometry& whole, ImageView<const float> x, const float* weight,
                         const float* bias, bool relu, ImageView<float> y, std::uint8_t* index) {
  ConvGeometry g = whole;
  if (skips_pixels(g)) skip_pixels(g, x);
  g = one_group(g);
  for (int64_t i = 0; i < whole.groups; ++i) {
    forward_group(g, x, weight, bias, relu, y, index);
    x.data += g.c * x.sc;
    weight += g.o * g.c * g.kh * g.kw;
    if (bias != nullptr) bias += g.o;
    y.data += g.o * y.sc;
    if (index != nullptr) index += g.o * y.sc;
  }
}

void conv_direct_backward(const ConvGeometry& whole, ImageView<const float> dy, const float* mask,
                          ImageView<const float> x, const float* weight, const ConvGradients& all) {
  ConvGeometry g = whole;
  ConvGradients grads = all;
  if (skips_pixels(g)) {
    if (grads.dx.data != nullptr) {
      zero_image(g, grads.dx);
      ConvGeometry copy = g;
      skip_pixels(copy, grads.dx);
    }
    skip_pixels(g, x);
  }
  g = one_group(g);
  for (int64_t i = 0; i < whole.groups; ++i) {
    backward_group(g, dy, mask, x, weight, grads);
    dy.data += g.o * dy.sc;
    if (mask != nullptr) mask += g.o * dy.sc;
    x.data += g.c * x.sc;
    if (weight != nullptr) weight += g.o * g.c * g.kh * g.kw;
    if (grads.dx.data != nullptr) grads.dx.data += g.c * grads.dx.sc;
    if (grads.dw != nullptr) grads.dw += g.o * g.c * g.kh * g.kw;
    if (grads.db != nullptr) grads.db += g.o;
  }
}

}  // namespace sg::kernels
