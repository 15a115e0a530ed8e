// Patches of images for convolutions by matrix products.
#include "core/cuda/column_sums.h"
#include "core/cuda/divide.h"
#include "core/cuda/kernels_image.h"
#include "core/cuda/pack.h"

namespace sg::cuda {
namespace {

using kernels::ConvGeometry;
using kernels::ImageView;

// A position in a row of patches to its group, filter tap and channel within the group. kPack
// neighbouring channels are one position.
struct PatchIndex {
  Divider padded, channels, kw, kh;
  std::int64_t length;  // positions of a patch that are not padding

  PatchIndex(const ConvGeometry& g, int pack)
      : padded(patch_row(g).padded / pack),
        channels(g.c / g.groups / pack),
        kw(g.kw),
        kh(g.kh),
        length(patch_row(g).length / pack) {}
};

template <class T, int kPack>
struct Im2col {
  PatchIndex patch;
  Divider groups, ow, oh;
  ImageView<const T> x;
  std::int64_t first, h, w, sh, sw, ph, pw, dh, dw;
  T* rows;

  SG_HD void operator()(std::int64_t i) const {
    T* const to = rows + i * kPack;
    std::int64_t q = patch.padded.split(i);
    const std::int64_t group = groups.split(i);
    Values<T, kPack> values{};
    if (q < patch.length) {
      const std::int64_t c = patch.channels.split(q) + group * patch.channels.divisor();
      const std::int64_t column = patch.kw.split(q);
      std::int64_t n = i + first;
      const std::int64_t ox = ow.split(n), oy = oh.split(n);
      const std::int64_t at_y = oy * sh - ph + q * dh, at_x = ox * sw - pw + column * dw;
      if (at_y >= 0 && at_y < h && at_x >= 0 && at_x < w)
        values = load<kPack>(x.data + n * x.sn + c * kPack * x.sc + at_y * x.sy + at_x * x.sx);
    }
    store(to, values);
  }
};

// A gather: every value of the input sums the patches it was in, in one order.
template <class T, int kPack>
struct Col2im {
  using C = compute_t<T>;
  Divider channels, group_channels, w, h, sh, sw;  // channels in packs
  std::int64_t kh, kw, oh, ow, ph, pw, dh, dw, padded, row;
  const C* rows;
  T* dx;

  SG_HD void operator()(std::int64_t i) const {
    T* const to = dx + i * kPack;
    std::int64_t group = channels.split(i);
    const std::int64_t c = group_channels.split(group);
    const std::int64_t x = w.split(i), y = h.split(i);  // i is the image
    C sum[kPack] = {};
    for (std::int64_t a = 0; a < kh; ++a) {
      std::int64_t oy = y + ph - a * dh;
      if (oy < 0 || sh.split(oy) != 0 || oy >= oh) continue;
      for (std::int64_t b = 0; b < kw; ++b) {
        std::int64_t ox = x + pw - b * dw;
        if (ox < 0 || sw.split(ox) != 0 || ox >= ow) continue;
        const C* const from = rows + ((i * oh + oy) * ow + ox) * row + group * padded +
                              ((a * kw + b) * group_channels.divisor() + c) * kPack;
        const Values<C, kPack> values = load<kPack>(from);
        for (int k = 0; k < kPack; ++k) sum[k] = sum[k] + values.v[k];
      }
    }
    Values<T, kPack> result;
    for (int k = 0; k < kPack; ++k) result.v[k] = static_cast<T>(sum[k]);
    store(to, result);
  }
};

template <class T>
struct PackFilters {
  PatchIndex patch;
  std::int64_t area;  // of a filter
  const T* weight;
  T* filters;
  SG_HD void operator()(std::int64_t i) const {
    T* const to = filters + i;
    std::int64_t tap = patch.padded.split(i);
    if (tap >= patch.length) {
      *to = T();
      return;
    }
    const std::int64_t c = patch.channels.split(tap);
    *to = weight[(i * patch.channels.divisor() + c) * area + tap];
  }
};

template <class T>
struct UnpackFilters {
  Divider area, channels;
  std::int64_t padded;
  const compute_t<T>* filters;
  T* weight;
  SG_HD void operator()(std::int64_t i) const {
    T* const to = weight + i;
    const std::int64_t tap = area.split(i), c = channels.split(i);
    *to = static_cast<T>(filters[i * padded + tap * channels.divisor() + c]);
  }
};

// The terms of column_sums: values themselves.
template <class T>
struct Value {
  using C = compute_t<T>;
  static constexpr int kSums = 1;
  const T* x;
  struct Channel {};
  SG_HD Channel channel(std::int64_t) const { return {}; }
  SG_HD void add(const Channel&, std::int64_t i, C* sums) const {
    sums[0] = sums[0] + static_cast<C>(x[i]);
  }
};

template <class T>
struct FoldColumns {
  FoldPartials partials;
  T* sums;
  template <class Team>
  SG_HD void operator()(const Team& team, std::int64_t c) const {
    const double total = partials.sum(team, 0, c);
    if (team.first()) sums[c] = static_cast<T>(static_cast<compute_t<T>>(total));
  }
};

}  // namespace

PatchRow patch_row(const ConvGeometry& g) {
  // Rows of a multiple of 16 bytes, also in 16-bit dtypes: what matrix products load at once.
  const std::int64_t length = g.c / g.groups * g.kh * g.kw;
  return {g.groups, length, (length + 7) / 8 * 8};
}

void im2col(const Launch& on, DType dtype, const ConvGeometry& g, const ImageView<const void>& x,
            std::int64_t first, std::int64_t count, void* rows) {
  visit_floating(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const ImageView<const T> view{static_cast<const T*>(x.data), x.sn, x.sc, x.sy, x.sx};
    const auto run = [&]<int kPack>(Count<kPack>) {
      for_each(on, count * (patch_row(g).size() / kPack),
               Im2col<T, kPack>{PatchIndex(g, kPack), Divider(g.groups), Divider(g.ow),
                                Divider(g.oh), view, first, g.h, g.w, g.sh, g.sw, g.ph, g.pw, g.dh,
                                g.dw, static_cast<T*>(rows)});
    };
    const std::int64_t unit = Pack<T>::kCount;
    if (x.sc == 1 && x.sx % unit == 0 && x.sy % unit == 0 && x.sn % unit == 0)
      with_pack<T>(g.c / g.groups, {x.data, rows}, run);
    else
      run(Count<1>{});
  });
}

void col2im(const Launch& on, DType dtype, const ConvGeometry& g, std::int64_t images,
            const void* rows, void* dx) {
  visit_floating(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    const PatchRow row = patch_row(g);
    with_pack<T>(g.c / g.groups, {rows, dx}, [&]<int kPack>(Count<kPack>) {
      for_each(on, images * g.h * g.w * (g.c / kPack),
               Col2im<T, kPack>{Divider(g.c / kPack), Divider(g.c / g.groups / kPack), Divider(g.w),
                                Divider(g.h), Divider(g.sh), Divider(g.sw), g.kh, g.kw, g.oh, g.ow,
                                g.ph, g.pw, g.dh, g.dw, row.padded, row.size(),
                                static_cast<const C*>(rows), static_cast<T*>(dx)});
    });
  });
}

void pack_filters(const Launch& on, DType dtype, const ConvGeometry& g, const void* weight,
                  void* filters) {
  visit_floating(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    for_each(on, g.o * patch_row(g).padded,
             PackFilters<T>{PatchIndex(g, 1), g.kh * g.kw, static_cast<const T*>(weight),
                            static_cast<T*>(filters)});
  });
}

void unpack_filters(const Launch& on, DType dtype, const ConvGeometry& g, const void* filters,
                    void* weight) {
  visit_floating(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const PatchRow row = patch_row(g);
    for_each(on, g.o * row.length,
             UnpackFilters<T>{Divider(g.kh * g.kw), Divider(g.c / g.groups), row.padded,
                              static_cast<const compute_t<T>*>(filters), static_cast<T*>(weight)});
  });
}

ColumnParts column_parts(std::int64_t rows, std::int64_t channels) {
  // Neighbouring threads read neighbouring values, a warp's worth and more where channels are few;
  // a thread has 32 values or more, and there are as many threads as fill a large GPU.
  constexpr std::int64_t kWidth = 64, kShare = 32, kThreadsAtOnce = 1 << 17;
  ColumnParts p;
  p.channels = channels;
  p.width = channels * ((kWidth + channels - 1) / channels);
  const std::int64_t shares = (rows * channels + p.width * kShare - 1) / (p.width * kShare);
  p.parts =
      std::clamp<std::int64_t>(shares, 1, std::max<std::int64_t>(kThreadsAtOnce / p.width, 1));
  return p;
}

void column_sums(const Launch& on, DType dtype, std::int64_t rows, std::int64_t channels,
                 const void* x, double* partial, void* sums) {
  visit_floating(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const ColumnParts parts = column_parts(rows, channels);
    partial_sums(on, parts, rows, Value<T>{static_cast<const T*>(x)}, partial);
    for_rows(on, channels, parts.per_channel(),
             FoldColumns<T>{FoldPartials(parts, partial), static_cast<T*>(sums)});
  });
}

}  // namespace sg::cuda
