// Convolutions of few channels, and grouped ones, without patches: a product of matrices would pad
// a handful of columns to a tile, and its patches would be many times the image. A thread sums for
// kBlock neighbouring channels, which share every value of the image that it reads; filters are
// small and stay in the first-level cache.
#include "core/cuda/divide.h"
#include "core/cuda/kernels_image.h"
#include "core/cuda/pack.h"

namespace sg::cuda {
namespace {

using kernels::ConvGeometry;
using kernels::ImageView;

constexpr int kBlock = 4;

// a b + c in one rounding, by name: contraction is off. The stand-in rounds twice, which is as
// good.
template <class C>
SG_HD C multiply_add(C a, C b, C c) {
#if defined(__CUDA_ARCH__)
  return fma(a, b, c);
#else
  return a * b + c;
#endif
}

std::int64_t blocks_of(std::int64_t channels) { return (channels + kBlock - 1) / kBlock; }

// Blocks of channels, group by group. A last block of fewer counts its first channel several times.
struct Block {
  Divider blocks;         // of all groups
  Divider per_group;      // blocks
  std::int64_t channels;  // of a group

  Block(std::int64_t groups, std::int64_t channels_)
      : blocks(groups * blocks_of(channels_)),
        per_group(blocks_of(channels_)),
        channels(channels_) {}
  struct At {
    std::int64_t group, first;  // first: within the group
    int count;
    SG_HD std::int64_t offset(int k) const { return k < count ? k : 0; }
  };
  SG_HD At split(std::int64_t& i) const {
    At at;
    at.group = blocks.split(i);
    at.first = per_group.split(at.group) * kBlock;
    at.count = channels - at.first < kBlock ? static_cast<int>(channels - at.first) : kBlock;
    return at;
  }
};

template <class T>
struct Forward {
  using C = compute_t<T>;
  ConvGeometry g;
  Block block;
  Divider ow, oh;
  ImageView<const T> x;
  const T *weight, *bias;
  bool relu;
  T* y;

  SG_HD void operator()(std::int64_t i) const {
    const Block::At at = block.split(i);
    const std::int64_t pixel = i, ox = ow.split(i), oy = oh.split(i);
    const std::int64_t ins = g.c / g.groups, area = g.kh * g.kw, patch = ins * area;
    const std::int64_t out = at.group * block.channels + at.first;
    const T* const image = x.data + i * x.sn + at.group * ins * x.sc;
    C sum[kBlock] = {};
    for (std::int64_t c = 0; c < ins; ++c)
      for (std::int64_t a = 0; a < g.kh; ++a) {
        const std::int64_t row = oy * g.sh - g.ph + a * g.dh;
        if (row < 0 || row >= g.h) continue;
        const T* const line = image + c * x.sc + row * x.sy;
        const T* const filter = weight + out * patch + c * area + a * g.kw;
        for (std::int64_t b = 0; b < g.kw; ++b) {
          const std::int64_t column = ox * g.sw - g.pw + b * g.dw;
          if (column < 0 || column >= g.w) continue;
          const C value = static_cast<C>(line[column * x.sx]);
          for (int k = 0; k < kBlock; ++k)
            sum[k] = multiply_add(value, static_cast<C>(filter[at.offset(k) * patch + b]), sum[k]);
        }
      }
    for (int k = 0; k < kBlock; ++k) {
      if (k >= at.count) break;
      C value = sum[k];
      if (bias != nullptr) value = value + static_cast<C>(bias[out + k]);
      y[pixel * g.o + out + k] = static_cast<T>(relu && value < C(0) ? C(0) : value);
    }
  }
};

template <class T>
struct InputGrad {
  using C = compute_t<T>;
  ConvGeometry g;
  Block block;
  Divider w, h, sh, sw;
  const T *dy, *weight;
  T* dx;

  SG_HD void operator()(std::int64_t i) const {
    const Block::At at = block.split(i);
    const std::int64_t pixel = i, x = w.split(i), y = h.split(i);
    const std::int64_t outs = g.o / g.groups, area = g.kh * g.kw, patch = block.channels * area;
    const T* const filters = weight + at.group * outs * patch + at.first * area;
    C sum[kBlock] = {};
    for (std::int64_t a = 0; a < g.kh; ++a) {
      std::int64_t oy = y + g.ph - a * g.dh;
      if (oy < 0 || sh.split(oy) != 0 || oy >= g.oh) continue;
      for (std::int64_t b = 0; b < g.kw; ++b) {
        std::int64_t ox = x + g.pw - b * g.dw;
        if (ox < 0 || sw.split(ox) != 0 || ox >= g.ow) continue;
        const T* const from = dy + ((i * g.oh + oy) * g.ow + ox) * g.o + at.group * outs;
        const T* const taps = filters + a * g.kw + b;
        for (std::int64_t o = 0; o < outs; ++o) {
          const C value = static_cast<C>(from[o]);
          for (int k = 0; k < kBlock; ++k)
            sum[k] =
                multiply_add(value, static_cast<C>(taps[o * patch + at.offset(k) * area]), sum[k]);
        }
      }
    }
    const std::int64_t to = pixel * g.c + at.group * block.channels + at.first;
    for (int k = 0; k < kBlock; ++k)
      if (k < at.count) dx[to + k] = static_cast<T>(sum[k]);
  }
};

// The sums over a part of the output's rows: short ones in C, those added up in double.
template <class T>
struct WeightGradParts {
  using C = compute_t<T>;
  ConvGeometry g;
  Block block;  // of output channels
  Divider kw, kh, ins, oh;
  std::int64_t parts, rows;  // rows: of a part
  ImageView<const T> x;
  const T* dy;
  double* partial;  // [weight][parts]

  SG_HD void operator()(std::int64_t i) const {
    const Block::At at = block.split(i);
    const std::int64_t b = kw.split(i), a = kh.split(i), c = ins.split(i), part = i;
    const std::int64_t tap = (c * g.kh + a) * g.kw + b;
    const std::int64_t out = at.group * block.channels + at.first;
    const T* const image = x.data + (at.group * ins.divisor() + c) * x.sc;
    const std::int64_t all = g.n * g.oh;
    const std::int64_t end = (part + 1) * rows < all ? (part + 1) * rows : all;
    double total[kBlock] = {};
    for (std::int64_t row = part * rows; row < end; ++row) {
      std::int64_t n = row;
      const std::int64_t y = oh.split(n) * g.sh - g.ph + a * g.dh;
      if (y < 0 || y >= g.h) continue;
      const T* const line = image + n * x.sn + y * x.sy;
      C sum[kBlock] = {};
      for (std::int64_t ox = 0; ox < g.ow; ++ox) {
        const std::int64_t column = ox * g.sw - g.pw + b * g.dw;
        if (column < 0 || column >= g.w) continue;
        const C value = static_cast<C>(line[column * x.sx]);
        const T* const from = dy + (row * g.ow + ox) * g.o + out;
        for (int k = 0; k < kBlock; ++k)
          sum[k] = multiply_add(value, static_cast<C>(from[at.offset(k)]), sum[k]);
      }
      for (int k = 0; k < kBlock; ++k) total[k] = total[k] + static_cast<double>(sum[k]);
    }
    const std::int64_t patch = ins.divisor() * g.kh * g.kw;
    for (int k = 0; k < at.count; ++k) partial[((out + k) * patch + tap) * parts + part] = total[k];
  }
};

template <class T>
struct WeightGradFold {
  std::int64_t parts;
  const double* partial;
  T* to;
  template <class Team>
  SG_HD void operator()(const Team& team, std::int64_t r) const {
    const double total =
        team.template sum<double>(parts, [&](std::int64_t i) { return partial[r * parts + i]; });
    if (team.first()) to[r] = static_cast<T>(static_cast<compute_t<T>>(total));
  }
};

template <class T>
ImageView<const T> view_of(const ImageView<const void>& x) {
  return {static_cast<const T*>(x.data), x.sn, x.sc, x.sy, x.sx};
}

}  // namespace

bool conv_direct_pays(const ConvGeometry& g) {
  const std::int64_t outs = g.o / g.groups, patch = g.c / g.groups * g.kh * g.kw;
  return outs <= 16 && outs * patch <= 2400;  // LeNet's second convolution: 16 x 6 x 5 x 5
}

void conv_direct(const Launch& on, DType dtype, const ConvGeometry& g,
                 const ImageView<const void>& x, const void* weight, const void* bias, bool relu,
                 void* y) {
  visit_floating(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const Block block(g.groups, g.o / g.groups);
    for_each(on, g.n * g.oh * g.ow * block.blocks.divisor(),
             Forward<T>{g, block, Divider(g.ow), Divider(g.oh), view_of<T>(x),
                        static_cast<const T*>(weight), static_cast<const T*>(bias), relu,
                        static_cast<T*>(y)});
  });
}

void conv_direct_input_grad(const Launch& on, DType dtype, const ConvGeometry& g, const void* dy,
                            const void* weight, void* dx) {
  visit_floating(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const Block block(g.groups, g.c / g.groups);
    for_each(on, g.n * g.h * g.w * block.blocks.divisor(),
             InputGrad<T>{g, block, Divider(g.w), Divider(g.h), Divider(g.sh), Divider(g.sw),
                          static_cast<const T*>(dy), static_cast<const T*>(weight),
                          static_cast<T*>(dx)});
  });
}

std::int64_t conv_direct_parts(const ConvGeometry& g) {
  // As many threads as fill a large GPU; it depends on the sizes alone.
  const std::int64_t threads =
      g.groups * blocks_of(g.o / g.groups) * (g.c / g.groups) * g.kh * g.kw;
  const std::int64_t rows = g.n * g.oh;
  const std::int64_t most = std::clamp<std::int64_t>((std::int64_t{1} << 17) / threads, 1, rows);
  const std::int64_t of_part = (rows + most - 1) / most;
  return (rows + of_part - 1) / of_part;
}

void conv_direct_weight_grad(const Launch& on, DType dtype, const ConvGeometry& g, const void* dy,
                             const ImageView<const void>& x, double* partial, void* weight_grad) {
  visit_floating(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const Block block(g.groups, g.o / g.groups);
    const std::int64_t parts = conv_direct_parts(g), ins = g.c / g.groups;
    const std::int64_t patch = ins * g.kh * g.kw, rows = (g.n * g.oh + parts - 1) / parts;
    for_each(on, parts * patch * block.blocks.divisor(),
             WeightGradParts<T>{g, block, Divider(g.kw), Divider(g.kh), Divider(ins), Divider(g.oh),
                                parts, rows, view_of<T>(x), static_cast<const T*>(dy), partial});
    for_rows(on, g.o * patch, parts,
             WeightGradFold<T>{parts, partial, static_cast<T*>(weight_grad)});
  });
}

}  // namespace sg::cuda
