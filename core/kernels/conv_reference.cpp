#include "core/kernels/conv_reference.h"

#include <algorithm>
#include <type_traits>

#include "core/kernels/conv_gemm.h"
#include "core/parallel.h"
#include "core/tensor.h"

namespace sg::kernels {
namespace {

template <class T>
ConvGemm<T> gemm() {
  if constexpr (std::is_same_v<T, float>)
    return conv_gemm().f32;
  else
    return conv_gemm().f64;
}

// Scratch of `count` elements a compute thread, booked as buffers.
template <class T>
Tensor scratch(std::int64_t count) {
  Scoped kind(current_rank().kind, Kind::buffers);
  return Tensor::empty({count}, dtype_of<T>, kCpu);
}

// Output columns whose input column lies inside [0, size): [first, last).
void valid_range(std::int64_t out, std::int64_t size, std::int64_t stride, std::int64_t shift,
                 std::int64_t* first, std::int64_t* last) {
  // 0 <= i * stride + shift < size
  *first = shift >= 0 ? 0 : std::min(out, (-shift + stride - 1) / stride);
  *last = shift >= size ? 0 : std::min(out, (size - 1 - shift) / stride + 1);
  *last = std::max(*first, *last);
}

// Rows of one group's patches: col[(c, i, j)][p] = x[c][oy sh - ph + i dh][ox sw - pw + j dw], zero
// outside.
template <class T>
void im2col(const ConvGeometry& g, const T* x, T* col) {
  const std::int64_t channels = g.c / g.groups;
  for (std::int64_t c = 0; c < channels; ++c)
    for (std::int64_t i = 0; i < g.kh; ++i)
      for (std::int64_t j = 0; j < g.kw; ++j) {
        std::int64_t first, last;
        const std::int64_t shift = j * g.dw - g.pw;
        valid_range(g.ow, g.w, g.sw, shift, &first, &last);
        for (std::int64_t oy = 0; oy < g.oh; ++oy, col += g.ow) {
          const std::int64_t y = oy * g.sh - g.ph + i * g.dh;
          if (y < 0 || y >= g.h) {
            std::fill(col, col + g.ow, T(0));
            continue;
          }
          const T* row = x + (c * g.h + y) * g.w + shift;
          std::fill(col, col + first, T(0));
          for (std::int64_t ox = first; ox < last; ++ox) col[ox] = row[ox * g.sw];
          std::fill(col + last, col + g.ow, T(0));
        }
      }
}

// The transpose: row[p][(c, i, j)].
template <class T>
void im2row(const ConvGeometry& g, const T* x, T* row) {
  const std::int64_t channels = g.c / g.groups;
  for (std::int64_t oy = 0; oy < g.oh; ++oy)
    for (std::int64_t ox = 0; ox < g.ow; ++ox)
      for (std::int64_t c = 0; c < channels; ++c)
        for (std::int64_t i = 0; i < g.kh; ++i) {
          const std::int64_t y = oy * g.sh - g.ph + i * g.dh;
          const bool inside = y >= 0 && y < g.h;
          const T* from = x + (c * g.h + y) * g.w;
          for (std::int64_t j = 0; j < g.kw; ++j) {
            const std::int64_t u = ox * g.sw - g.pw + j * g.dw;
            *row++ = inside && u >= 0 && u < g.w ? from[u] : T(0);
          }
        }
}

// Adds patches back to the image they were taken from.
template <class T>
void col2im(const ConvGeometry& g, const T* col, T* x) {
  const std::int64_t channels = g.c / g.groups;
  std::fill(x, x + channels * g.h * g.w, T(0));
  for (std::int64_t c = 0; c < channels; ++c)
    for (std::int64_t i = 0; i < g.kh; ++i)
      for (std::int64_t j = 0; j < g.kw; ++j) {
        std::int64_t first, last;
        const std::int64_t shift = j * g.dw - g.pw;
        valid_range(g.ow, g.w, g.sw, shift, &first, &last);
        for (std::int64_t oy = 0; oy < g.oh; ++oy, col += g.ow) {
          const std::int64_t y = oy * g.sh - g.ph + i * g.dh;
          if (y < 0 || y >= g.h) continue;
          T* row = x + (c * g.h + y) * g.w + shift;
          for (std::int64_t ox = first; ox < last; ++ox) row[ox * g.sw] += col[ox];
        }
      }
}

// Parts of [0, n), one a compute thread: f(part, begin, end).
template <class F>
void in_parts(std::int64_t n, std::int64_t parts, F&& f) {
  parallel_for(parts, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t part = first; part < last; ++part)
      f(part, n * part / parts, n * (part + 1) / parts);
  });
}

}  // namespace

template <class T>
void conv_reference_forward(const ConvGeometry& g, const T* x, const T* weight, const T* bias, T* y,
                            bool relu) {
  const std::int64_t patch = g.c / g.groups * g.kh * g.kw, pixels = g.oh * g.ow;
  const std::int64_t outs = g.o / g.groups, work = g.n * g.groups;
  const std::int64_t parts =
      std::clamp<std::int64_t>(current_rank().threads, 1, std::max<std::int64_t>(work, 1));
  const Tensor buffer = scratch<T>(parts * patch * pixels);
  in_parts(work, parts, [&](std::int64_t part, std::int64_t begin, std::int64_t end) {
    T* col = buffer.data<T>() + part * patch * pixels;
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t group = i % g.groups;
      im2col(g, x + i * (g.c / g.groups) * g.h * g.w, col);
      T* out = y + i * outs * pixels;
      if (bias != nullptr)
        for (std::int64_t o = 0; o < outs; ++o)
          std::fill(out + o * pixels, out + (o + 1) * pixels, bias[group * outs + o]);
      gemm<T>()(outs, pixels, patch, weight + group * outs * patch, patch, 1, col, pixels, out,
                pixels, bias != nullptr);
      if (relu)
        for (std::int64_t p = 0; p < outs * pixels; ++p) out[p] = out[p] < T(0) ? T(0) : out[p];
    }
  });
}

template <class T>
void conv_reference_backward_input(const ConvGeometry& g, const T* dy, const T* weight, T* dx) {
  const std::int64_t patch = g.c / g.groups * g.kh * g.kw, pixels = g.oh * g.ow;
  const std::int64_t outs = g.o / g.groups, work = g.n * g.groups;
  const std::int64_t parts =
      std::clamp<std::int64_t>(current_rank().threads, 1, std::max<std::int64_t>(work, 1));
  const Tensor buffer = scratch<T>(parts * patch * pixels);
  in_parts(work, parts, [&](std::int64_t part, std::int64_t begin, std::int64_t end) {
    T* col = buffer.data<T>() + part * patch * pixels;
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t group = i % g.groups;
      gemm<T>()(patch, pixels, outs, weight + group * outs * patch, 1, patch,
                dy + i * outs * pixels, pixels, col, pixels, false);
      col2im(g, col, dx + i * (g.c / g.groups) * g.h * g.w);
    }
  });
}

template <class T>
void conv_reference_backward_weight(const ConvGeometry& g, const T* dy, const T* x, T* dw, T* db) {
  const std::int64_t patch = g.c / g.groups * g.kh * g.kw, pixels = g.oh * g.ow;
  const std::int64_t outs = g.o / g.groups, sizes = g.o * patch;
  if (dw != nullptr) {
    // Each part sums its images; the parts are then added in order.
    const std::int64_t parts =
        std::clamp<std::int64_t>(current_rank().threads, 1, std::max<std::int64_t>(g.n, 1));
    const Tensor rows = scratch<T>(parts * patch * pixels);
    const Tensor sums = scratch<T>(parts * sizes);
    sums.fill(0);
    in_parts(g.n, parts, [&](std::int64_t part, std::int64_t begin, std::int64_t end) {
      T* row = rows.data<T>() + part * patch * pixels;
      T* sum = sums.data<T>() + part * sizes;
      for (std::int64_t i = begin * g.groups; i < end * g.groups; ++i) {
        const std::int64_t group = i % g.groups;
        im2row(g, x + i * (g.c / g.groups) * g.h * g.w, row);
        gemm<T>()(outs, patch, pixels, dy + i * outs * pixels, pixels, 1, row, patch,
                  sum + group * outs * patch, patch, true);
      }
    });
    const T* sum = sums.data<T>();
    std::copy(sum, sum + sizes, dw);
    for (std::int64_t part = 1; part < parts; ++part)
      for (std::int64_t i = 0; i < sizes; ++i) dw[i] += sum[part * sizes + i];
  }
  if (db == nullptr) return;
  parallel_for(g.o, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t o = begin; o < end; ++o) {
      double total = 0;
      for (std::int64_t n = 0; n < g.n; ++n) {
        const T* row = dy + (n * g.o + o) * pixels;
        double sum = 0;
        for (std::int64_t p = 0; p < pixels; ++p) sum += static_cast<double>(row[p]);
        total += sum;
      }
      db[o] = static_cast<T>(total);
    }
  });
}

#define SG_INSTANTIATE(T)                                                                        \
  template void conv_reference_forward<T>(const ConvGeometry&, const T*, const T*, const T*, T*, \
                                          bool);                                                 \
  template void conv_reference_backward_input<T>(const ConvGeometry&, const T*, const T*, T*);   \
  template void conv_reference_backward_weight<T>(const ConvGeometry&, const T*, const T*, T*, T*);
SG_INSTANTIATE(float)
SG_INSTANTIATE(double)
#undef SG_INSTANTIATE

}  // namespace sg::kernels
