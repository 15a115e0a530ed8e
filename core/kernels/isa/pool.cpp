#include "core/kernels/pool.h"

namespace sg::kernels::SG_ISA {
namespace {

using std::int64_t;

// The part of a window that lies inside the input.
struct Window {
  int64_t y0, y1, x0, x1;  // rows and columns of the input, [first, last)
  int64_t top, left;       // of the window itself, perhaps in the padding
};

inline Window window(const PoolGeometry& g, int64_t oy, int64_t ox) {
  Window r;
  r.top = oy * g.sh - g.ph;
  r.left = ox * g.sw - g.pw;
  r.y0 = r.top < 0 ? 0 : r.top;
  r.x0 = r.left < 0 ? 0 : r.left;
  r.y1 = r.top + g.kh < g.h ? r.top + g.kh : g.h;
  r.x1 = r.left + g.kw < g.w ? r.left + g.kw : g.w;
  return r;
}

// A later element wins only if it is greater, or NaN.
template <class T>
inline bool beats(T value, T best) {
  return value > best || value != value;
}

inline bool is_two_by_two(const PoolGeometry& g) {
  return g.kh == 2 && g.kw == 2 && g.sh == 2 && g.sw == 2 && g.ph == 0 && g.pw == 0;
}

template <class T>
struct Best {
  T value;
  int at;
};

// The first maximum of four, as compares and selects.
template <class T>
inline Best<T> best_of_four(T a, T b, T c, T d) {
  T value = a;
  int at = 0;
  bool wins = beats(b, value);
  value = wins ? b : value;
  at = wins ? 1 : at;
  wins = beats(c, value);
  value = wins ? c : value;
  at = wins ? 2 : at;
  wins = beats(d, value);
  return {wins ? d : value, wins ? 3 : at};
}

template <class T, class I>
void max_forward_planes(const PoolGeometry& g, const T* x, T* y, I* index, int64_t count) {
  for (int64_t plane = 0; plane < count; ++plane, x += g.h * g.w) {
    for (int64_t oy = 0; oy < g.oh; ++oy, y += g.ow, index += g.ow) {
      if (is_two_by_two(g)) {
        const T* upper = x + 2 * oy * g.w;
        const T* lower = upper + g.w;
#pragma omp simd
        for (int64_t ox = 0; ox < g.ow; ++ox) {
          const Best<T> best =
              best_of_four(upper[2 * ox], upper[2 * ox + 1], lower[2 * ox], lower[2 * ox + 1]);
          y[ox] = best.value;
          index[ox] = static_cast<I>(best.at);
        }
        continue;
      }
      for (int64_t ox = 0; ox < g.ow; ++ox) {
        const Window r = window(g, oy, ox);
        T best = x[r.y0 * g.w + r.x0];
        int64_t at = (r.y0 - r.top) * g.kw + r.x0 - r.left;
        for (int64_t i = r.y0; i < r.y1; ++i)
          for (int64_t j = r.x0; j < r.x1; ++j)
            if (beats(x[i * g.w + j], best)) {
              best = x[i * g.w + j];
              at = (i - r.top) * g.kw + j - r.left;
            }
        y[ox] = best;
        index[ox] = static_cast<I>(at);
      }
    }
  }
}

template <class T, class I>
void max_forward_images(const PoolGeometry& g, const T* x, T* y, I* index, int64_t count) {
  constexpr int64_t kBlock = 64;
  for (int64_t image = 0; image < count; ++image, x += g.h * g.w * g.c) {
    for (int64_t oy = 0; oy < g.oh; ++oy) {
      for (int64_t ox = 0; ox < g.ow; ++ox, y += g.c, index += g.c) {
        if (is_two_by_two(g)) {
          const T* a = x + (2 * oy * g.w + 2 * ox) * g.c;
          const T* b = a + g.c;
          const T* c = a + g.w * g.c;
          const T* d = c + g.c;
#pragma omp simd
          for (int64_t i = 0; i < g.c; ++i) {
            const Best<T> best = best_of_four(a[i], b[i], c[i], d[i]);
            y[i] = best.value;
            index[i] = static_cast<I>(best.at);
          }
          continue;
        }
        const Window r = window(g, oy, ox);
        for (int64_t first = 0; first < g.c; first += kBlock) {
          const int64_t size = g.c - first < kBlock ? g.c - first : kBlock;
          T best[kBlock];
          int at[kBlock];
          const T* start = x + (r.y0 * g.w + r.x0) * g.c + first;
          const int start_at = static_cast<int>((r.y0 - r.top) * g.kw + r.x0 - r.left);
          for (int64_t k = 0; k < size; ++k) {
            best[k] = start[k];
            at[k] = start_at;
          }
          for (int64_t i = r.y0; i < r.y1; ++i)
            for (int64_t j = r.x0; j < r.x1; ++j) {
              const T* row = x + (i * g.w + j) * g.c + first;
              const int here = static_cast<int>((i - r.top) * g.kw + j - r.left);
#pragma omp simd
              for (int64_t k = 0; k < size; ++k) {
                const bool wins = beats(row[k], best[k]);
                best[k] = wins ? row[k] : best[k];
                at[k] = wins ? here : at[k];
              }
            }
          for (int64_t k = 0; k < size; ++k) {
            y[first + k] = best[k];
            index[first + k] = static_cast<I>(at[k]);
          }
        }
      }
    }
  }
}

template <class T>
void zero(T* p, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = T(0);
}

template <class T, class I>
void max_backward_planes(const PoolGeometry& g, const T* dy, const I* index, T* dx, int64_t count) {
  for (int64_t plane = 0; plane < count; ++plane, dx += g.h * g.w) {
    if (is_two_by_two(g)) {
      for (int64_t oy = 0; oy < g.oh; ++oy, dy += g.ow, index += g.ow) {
        T* upper = dx + 2 * oy * g.w;
        T* lower = upper + g.w;
#pragma omp simd
        for (int64_t ox = 0; ox < g.ow; ++ox) {
          const int at = index[ox];
          upper[2 * ox] = at == 0 ? dy[ox] : T(0);
          upper[2 * ox + 1] = at == 1 ? dy[ox] : T(0);
          lower[2 * ox] = at == 2 ? dy[ox] : T(0);
          lower[2 * ox + 1] = at == 3 ? dy[ox] : T(0);
        }
        if (2 * g.ow < g.w) upper[g.w - 1] = lower[g.w - 1] = T(0);
      }
      if (2 * g.oh < g.h) zero(dx + 2 * g.oh * g.w, g.w);
      continue;
    }
    zero(dx, g.h * g.w);
    for (int64_t oy = 0; oy < g.oh; ++oy, dy += g.ow, index += g.ow)
      for (int64_t ox = 0; ox < g.ow; ++ox) {
        const int64_t at = index[ox];
        dx[(oy * g.sh - g.ph + at / g.kw) * g.w + ox * g.sw - g.pw + at % g.kw] += dy[ox];
      }
  }
}

template <class T, class I>
void max_backward_images(const PoolGeometry& g, const T* dy, const I* index, T* dx, int64_t count) {
  for (int64_t image = 0; image < count; ++image, dx += g.h * g.w * g.c) {
    if (is_two_by_two(g)) {
      for (int64_t oy = 0; oy < g.oh; ++oy) {
        T* upper = dx + 2 * oy * g.w * g.c;
        for (int64_t ox = 0; ox < g.ow; ++ox, dy += g.c, index += g.c) {
          T* a = upper + 2 * ox * g.c;
          T* b = a + g.c;
          T* c = a + g.w * g.c;
          T* d = c + g.c;
#pragma omp simd
          for (int64_t i = 0; i < g.c; ++i) {
            const int at = index[i];
            a[i] = at == 0 ? dy[i] : T(0);
            b[i] = at == 1 ? dy[i] : T(0);
            c[i] = at == 2 ? dy[i] : T(0);
            d[i] = at == 3 ? dy[i] : T(0);
          }
        }
        if (2 * g.ow < g.w) {
          zero(upper + (g.w - 1) * g.c, g.c);
          zero(upper + (2 * g.w - 1) * g.c, g.c);
        }
      }
      if (2 * g.oh < g.h) zero(dx + 2 * g.oh * g.w * g.c, g.w * g.c);
      continue;
    }
    zero(dx, g.h * g.w * g.c);
    for (int64_t oy = 0; oy < g.oh; ++oy)
      for (int64_t ox = 0; ox < g.ow; ++ox, dy += g.c, index += g.c) {
        const Window r = window(g, oy, ox);
        for (int64_t i = r.y0; i < r.y1; ++i)
          for (int64_t j = r.x0; j < r.x1; ++j) {
            T* row = dx + (i * g.w + j) * g.c;
            const int here = static_cast<int>((i - r.top) * g.kw + j - r.left);
#pragma omp simd
            for (int64_t k = 0; k < g.c; ++k)
              row[k] += static_cast<int>(index[k]) == here ? dy[k] : T(0);
          }
      }
  }
}

template <class T>
void avg_forward_planes(const PoolGeometry& g, const T* x, T* y, int64_t count) {
  const T scale = T(1) / static_cast<T>(g.kh * g.kw);
  for (int64_t plane = 0; plane < count; ++plane, x += g.h * g.w)
    for (int64_t oy = 0; oy < g.oh; ++oy)
      for (int64_t ox = 0; ox < g.ow; ++ox) {
        const Window r = window(g, oy, ox);
        T sum = 0;
        for (int64_t i = r.y0; i < r.y1; ++i)
          for (int64_t j = r.x0; j < r.x1; ++j) sum += x[i * g.w + j];
        *y++ = sum * scale;
      }
}

template <class T>
void avg_forward_images(const PoolGeometry& g, const T* x, T* y, int64_t count) {
  const T scale = T(1) / static_cast<T>(g.kh * g.kw);
  for (int64_t image = 0; image < count; ++image, x += g.h * g.w * g.c)
    for (int64_t oy = 0; oy < g.oh; ++oy)
      for (int64_t ox = 0; ox < g.ow; ++ox, y += g.c) {
        const Window r = window(g, oy, ox);
        zero(y, g.c);
        for (int64_t i = r.y0; i < r.y1; ++i)
          for (int64_t j = r.x0; j < r.x1; ++j) {
            const T* row = x + (i * g.w + j) * g.c;
#pragma omp simd
            for (int64_t k = 0; k < g.c; ++k) y[k] += row[k];
          }
#pragma omp simd
        for (int64_t k = 0; k < g.c; ++k) y[k] *= scale;
      }
}

template <class T>
void avg_backward_planes(const PoolGeometry& g, const T* dy, T* dx, int64_t count) {
  const T scale = T(1) / static_cast<T>(g.kh * g.kw);
  for (int64_t plane = 0; plane < count; ++plane, dx += g.h * g.w) {
    zero(dx, g.h * g.w);
    for (int64_t oy = 0; oy < g.oh; ++oy)
      for (int64_t ox = 0; ox < g.ow; ++ox) {
        const Window r = window(g, oy, ox);
        const T each = *dy++ * scale;
        for (int64_t i = r.y0; i < r.y1; ++i)
          for (int64_t j = r.x0; j < r.x1; ++j) dx[i * g.w + j] += each;
      }
  }
}

template <class T>
void avg_backward_images(const PoolGeometry& g, const T* dy, T* dx, int64_t count) {
  const T scale = T(1) / static_cast<T>(g.kh * g.kw);
  for (int64_t image = 0; image < count; ++image, dx += g.h * g.w * g.c) {
    zero(dx, g.h * g.w * g.c);
    for (int64_t oy = 0; oy < g.oh; ++oy)
      for (int64_t ox = 0; ox < g.ow; ++ox, dy += g.c) {
        const Window r = window(g, oy, ox);
        for (int64_t i = r.y0; i < r.y1; ++i)
          for (int64_t j = r.x0; j < r.x1; ++j) {
            T* row = dx + (i * g.w + j) * g.c;
#pragma omp simd
            for (int64_t k = 0; k < g.c; ++k) row[k] += dy[k] * scale;
          }
      }
  }
}

template <class T, class I>
constexpr MaxPoolLoops<T, I> max_loops{&max_forward_planes<T, I>, &max_forward_images<T, I>,
                                       &max_backward_planes<T, I>, &max_backward_images<T, I>};
template <class T>
constexpr AvgPoolLoops<T> avg_loops{&avg_forward_planes<T>, &avg_forward_images<T>,
                                    &avg_backward_planes<T>, &avg_backward_images<T>};

}  // namespace

const PoolTable& pool_table() {
  static const PoolTable table{max_loops<float, std::uint8_t>,
                               max_loops<float, std::int32_t>,
                               max_loops<double, std::uint8_t>,
                               max_loops<double, std::int32_t>,
                               avg_loops<float>,
                               avg_loops<double>};
  return table;
}

}  // namespace sg::kernels::SG_ISA
