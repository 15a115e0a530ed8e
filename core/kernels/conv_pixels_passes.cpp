#include "core/kernels/conv_pixels_passes.h"

#include <vector>

#include "core/kernels/conv_passes.h"
#include "core/kernels/conv_pixels.h"
#include "core/parallel.h"

namespace sg::kernels {
namespace {

using std::int64_t;

int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

// An image with its padding, packed pixel by pixel. Vectors that begin at its last value may be
// read.
struct PixelImage {
  int64_t rows, columns, channels;
  explicit PixelImage(const ConvGeometry& g)
      : rows(std::max(g.h + 2 * g.ph, (g.oh - 1) * g.sh + (g.kh - 1) * g.dh + 1)),
        columns(std::max(g.w + 2 * g.pw, (g.ow - 1) * g.sw + g.kw)),
        channels(g.c) {}
  int64_t row() const { return columns * channels; }
  int64_t size() const {
    return round_up(rows * row() + (kMostVectors() + 1) * conv_pixels().lanes, 16);
  }
  static int64_t kMostVectors() { return conv_pixels().most_vectors; }

  void pack(const ConvGeometry& g, ImageView<const float> x, const float* from, float* to) const {
    std::fill(to, to + size(), 0.0f);
    float* inside = to + g.ph * row() + g.pw * channels;
    if (x.sx == 1) return conv_pixels().interleave(order(g, x.sc, x.sy), from, inside);
    for (int64_t y = 0; y < g.h; ++y)
      for (int64_t i = 0; i < g.w; ++i)
        for (int64_t c = 0; c < channels; ++c)
          inside[y * row() + i * channels + c] = from[y * x.sy + i * x.sx + c * x.sc];
  }

  void unpack(const ConvGeometry& g, const float* from, ImageView<float> x, float* to) const {
    const float* inside = from + g.ph * row() + g.pw * channels;
    if (x.sx == 1) return conv_pixels().separate(order(g, x.sc, x.sy), inside, to);
    for (int64_t y = 0; y < g.h; ++y)
      for (int64_t i = 0; i < g.w; ++i)
        for (int64_t c = 0; c < channels; ++c)
          to[y * x.sy + i * x.sx + c * x.sc] = inside[y * row() + i * channels + c];
  }

 private:
  ConvInterleave order(const ConvGeometry& g, int64_t plane, int64_t plane_row) const {
    return {channels, g.h, g.w, plane, plane_row, row()};
  }
};

// Channels that have a gradient at each pixel of one row of pooling windows.
class RowLists {
 public:
  RowLists(int64_t windows, int64_t outs)
      : outs_(outs),
        counts_(static_cast<std::size_t>(windows * kPlaces)),
        channels_(counts_.size() * static_cast<std::size_t>(outs)),
        values_(channels_.size()) {}

  // Index 4, "no gradient", has a list of its own, which nobody reads: no branch to mispredict.
  void fill(const float* dy, const std::uint8_t* index, int64_t plane, int64_t windows) {
    std::fill(counts_.begin(), counts_.end(), 0);
    std::int32_t* const counts = counts_.data();
    std::int32_t* const channels = channels_.data();
    float* const values = values_.data();
    const auto outs = static_cast<std::int32_t>(outs_), row = static_cast<std::int32_t>(windows);
    for (std::int32_t o = 0; o < outs; ++o, dy += plane, index += plane)
      for (std::int32_t x = 0; x < row; ++x) {
        const std::int32_t place = x * kPlaces + index[x], at = place * outs + counts[place]++;
        channels[at] = o;
        values[at] = dy[x];
      }
  }
  int64_t count(int64_t window, int64_t place) const { return counts_[at(window, place)]; }
  const std::int32_t* channels(int64_t window, int64_t place) const {
    return channels_.data() + at(window, place) * static_cast<std::size_t>(outs_);
  }
  const float* values(int64_t window, int64_t place) const {
    return values_.data() + at(window, place) * static_cast<std::size_t>(outs_);
  }

 private:
  static constexpr std::int32_t kPlaces = 5;
  static std::size_t at(int64_t window, int64_t place) {
    return static_cast<std::size_t>(window * kPlaces + place);
  }
  int64_t outs_;
  std::vector<std::int32_t> counts_, channels_;
  std::vector<float> values_;
};

}  // namespace

bool conv_pixels_supports(const ConvGeometry& g) { return g.sw == 1 && g.groups == 1; }

void conv_pixels_forward(const ConvGeometry& g, ImageView<const float> x, const float* weight,
                         const float* bias, bool relu, ImageView<float> y, std::uint8_t* index) {
  const int64_t unit = index != nullptr ? 2 : 1, rows = g.oh / unit, width = g.ow / unit;
  if (rows == 0 || width == 0) return;
  // Nearly equal groups of output channels, each with its weights in the order of the taps.
  const int64_t taps = g.c * g.kh * g.kw, groups = divide_up(g.o, kConvPixelsGroup);
  const Tensor packed = scratch(taps * g.o);
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t first = g.o * group / groups, last = g.o * (group + 1) / groups;
    float* to = packed.data<float>() + first * taps;
    for (int64_t t = 0; t < taps; ++t)
      for (int64_t o = first; o < last; ++o) *to++ = weight[o * taps + t];
  }

  const int64_t columns = round_up(g.ow, conv_pixels().lanes) + (g.kw - 1) * g.dw;
  const int64_t threads = current_rank().threads;
  const int64_t band = g.n < threads ? divide_up(rows, divide_up(threads, g.n)) : rows;
  const int64_t window_rows = (band * unit - 1) * g.sh + (g.kh - 1) * g.dh + 1,
                plane = window_rows * columns;
  std::vector<int64_t> offsets;
  for (int64_t c = 0; c < g.c; ++c)
    for (int64_t i = 0; i < g.kh; ++i)
      for (int64_t j = 0; j < g.kw; ++j)
        offsets.push_back(c * plane + i * g.dh * columns + j * g.dw);

  const int64_t bands = divide_up(rows, band), parts = std::min<int64_t>(threads, g.n * bands);
  // Pairs of rows and of vectors are read at a time, so one row and one vector more than there are.
  const int64_t size = g.c * plane + columns + 2 * conv_pixels().lanes;
  const Tensor images = scratch(parts * size);
  parallel_for(parts, 1, [&](int64_t first_part, int64_t last_part) {
    for (int64_t part = first_part; part < last_part; ++part)
      for (int64_t i = g.n * bands * part / parts; i < g.n * bands * (part + 1) / parts; ++i) {
        const int64_t n = i / bands, first = i % bands * band, count = std::min(band, rows - first);
        float* image = images.data<float>() + part * size;
        conv_direct().pack_image({.from = x.image(n),
                                  .sc = x.sc,
                                  .sy = x.sy,
                                  .sx = x.sx,
                                  .channels = g.c,
                                  .h = g.h,
                                  .w = g.w,
                                  .top = first * unit * g.sh - g.ph,
                                  .left = -g.pw,
                                  .rows = window_rows,
                                  .columns = columns,
                                  .block = 1,
                                  .to = image});
        for (int64_t group = 0; group < groups; ++group) {
          const int64_t out = g.o * group / groups, next = g.o * (group + 1) / groups;
          const int64_t at = n * y.sn + out * y.sc + first * y.sy;
          conv_pixels().forward({.x = image,
                                 .row = g.sh * columns,
                                 .taps = offsets.data(),
                                 .tap_count = taps,
                                 .w = packed.data<float>() + out * taps,
                                 .bias = bias != nullptr ? bias + out : nullptr,
                                 .outs = next - out,
                                 .y = y.data + at,
                                 .y_row = y.sy,
                                 .y_out = y.sc,
                                 .rows = count,
                                 .width = width,
                                 .relu = relu,
                                 .index = index != nullptr ? index + at : nullptr});
        }
      }
  });
}

bool conv_sparse_supports(const ConvGeometry& g) {
  return g.dw == 1 && g.groups == 1 &&
         divide_up(g.kw * g.c, conv_pixels().lanes) <= conv_pixels().most_vectors;
}

void conv_sparse_backward(const ConvGeometry& g, ImageView<const float> dy,
                          const std::uint8_t* index, ImageView<const float> x, const float* weight,
                          const ConvGradients& grads) {
  const bool wants_x = grads.dx.data != nullptr, wants_w = grads.dw != nullptr;
  const PixelImage image(g);
  const int64_t run = g.kw * g.c, vectors = divide_up(run, conv_pixels().lanes);
  const int64_t padded = vectors * conv_pixels().lanes, filter = g.kh * padded;
  const int64_t rows = g.oh / 2, windows = g.ow / 2;

  // Filters as runs: [o][i][j, c].
  const Tensor filters = scratch(wants_x ? g.o * filter : 0);
  if (wants_x) {
    filters.fill(0);
    float* to = filters.data<float>();
    for (int64_t o = 0; o < g.o; ++o)
      for (int64_t c = 0; c < g.c; ++c)
        for (int64_t i = 0; i < g.kh; ++i)
          for (int64_t j = 0; j < g.kw; ++j)
            to[o * filter + i * padded + j * g.c + c] =
                weight[((o * g.c + c) * g.kh + i) * g.kw + j];
  }
  // Where the patch of each pixel of a window begins, after that of its first.
  std::int32_t shift[5] = {};
  for (int64_t k = 0; k < 4; ++k)
    shift[k] = static_cast<std::int32_t>(k / 2 * g.sh * image.row() + k % 2 * g.sw * g.c);
  std::vector<std::int32_t> first_patches;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t w = 0; w < windows; ++w)
      first_patches.push_back(
          static_cast<std::int32_t>(2 * r * g.sh * image.row() + 2 * w * g.sw * g.c));

  const int64_t parts = std::min<int64_t>(current_rank().threads, g.n);
  const int64_t sums_size = wants_w ? g.o * filter : 0;
  const Tensor images = scratch(parts * image.size());
  const Tensor sums = scratch(parts * sums_size);
  const float* const filters_at = filters.data<float>();
  std::vector<double> bias_sums(static_cast<std::size_t>(parts * g.o));
  parallel_for(parts, 1, [&](int64_t first_part, int64_t last_part) {
    std::vector<std::int32_t> patches(first_patches.size() +
                                      static_cast<std::size_t>(conv_pixels().lanes));
    std::vector<float> values(patches.size());
    RowLists lists(wants_x ? windows : 0, g.o);
    for (int64_t part = first_part; part < last_part; ++part) {
      float* packed = images.data<float>() + part * image.size();
      float* sum = sums.data<float>() + part * sums_size;
      std::fill(sum, sum + sums_size, 0.0f);
      for (int64_t n = g.n * part / parts; n < g.n * (part + 1) / parts; ++n) {
        if (wants_w) image.pack(g, x, x.image(n), packed);
        if (wants_w || grads.db != nullptr)
          for (int64_t o = 0; o < g.o; ++o) {
            const int64_t at = n * dy.sn + o * dy.sc;
            const int64_t count =
                conv_pixels().gather(dy.data + at, index + at, rows * windows, first_patches.data(),
                                     shift, patches.data(), values.data(),
                                     &bias_sums[static_cast<std::size_t>(part * g.o + o)]);
            if (wants_w)
              conv_pixels().sparse_weight({.x = packed,
                                           .row = g.dh * image.row(),
                                           .patches = patches.data(),
                                           .values = values.data(),
                                           .count = count,
                                           .rows = g.kh,
                                           .vectors = vectors,
                                           .dw = sum + o * filter});
          }
        if (!wants_x) continue;
        std::fill(packed, packed + image.size(), 0.0f);
        for (int64_t r = 0; r < rows; ++r) {
          const int64_t at = n * dy.sn + r * dy.sy;
          lists.fill(dy.data + at, index + at, dy.sc, windows);
          for (int64_t w = 0; w < windows; ++w)
            for (int64_t k = 0; k < 4; ++k) {
              if (lists.count(w, k) == 0) continue;
              conv_pixels().sparse_input(
                  {.w = filters_at,
                   .outs = lists.channels(w, k),
                   .values = lists.values(w, k),
                   .count = lists.count(w, k),
                   .rows = g.kh,
                   .vectors = vectors,
                   .dx =
                       packed + first_patches[static_cast<std::size_t>(r * windows + w)] + shift[k],
                   .row = g.dh * image.row()});
            }
        }
        image.unpack(g, packed, grads.dx, grads.dx.image(n));
      }
    }
  });

  const float* sum = sums.data<float>();
  if (wants_w)
    for (int64_t o = 0; o < g.o; ++o)
      for (int64_t c = 0; c < g.c; ++c)
        for (int64_t i = 0; i < g.kh; ++i)
          for (int64_t j = 0; j < g.kw; ++j) {
            const float* from = sum + o * filter + i * padded + j * g.c + c;
            float total = from[0];
            for (int64_t part = 1; part < parts; ++part) total += from[part * sums_size];
            grads.dw[((o * g.c + c) * g.kh + i) * g.kw + j] = total;
          }
  if (grads.db != nullptr) add_parts(bias_sums, g.o, grads.db);
}

}  // namespace sg::kernels
