// Pooling. A thread has one output (backward: one input) of one channel, or of a pack of
// neighbouring ones; backward gathers, so that windows may overlap without atomics.
#include "core/cuda/divide.h"
#include "core/cuda/kernels_image.h"
#include "core/cuda/pack.h"

namespace sg::cuda {
namespace {

using kernels::PoolGeometry;

// A thread's place in an image tensor [n, rows, columns, packs of channels].
struct Place {
  Divider packs, columns, rows;
  Place(const PoolGeometry& g, int pack, std::int64_t rows_, std::int64_t columns_)
      : packs(g.c / pack), columns(columns_), rows(rows_) {}
  struct At {
    std::int64_t n, y, x, c;
  };
  SG_HD At of(std::int64_t i) const {
    At at;
    at.c = packs.split(i);
    at.x = columns.split(i);
    at.y = rows.split(i);
    at.n = i;
    return at;
  }
};

// The part of a window that lies inside the input.
struct Window {
  std::int64_t y0, y1, x0, x1, top, left;
  SG_HD Window(const PoolGeometry& g, std::int64_t oy, std::int64_t ox) {
    top = oy * g.sh - g.ph;
    left = ox * g.sw - g.pw;
    y0 = top < 0 ? 0 : top;
    x0 = left < 0 ? 0 : left;
    y1 = top + g.kh < g.h ? top + g.kh : g.h;
    x1 = left + g.kw < g.w ? left + g.kw : g.w;
  }
};

// The windows that an input element is in: first and last + 1 along one dimension.
struct Covering {
  std::int64_t first, last;
  SG_HD Covering(const Divider& stride, std::int64_t kernel, std::int64_t padding,
                 std::int64_t windows, std::int64_t at) {
    const std::int64_t below = at + padding - kernel;  // a window that starts here ends before `at`
    first = below < 0 ? 0 : stride.quotient(below) + 1;
    last = stride.quotient(at + padding) + 1;
    if (last > windows) last = windows;
  }
};

// f(place in the window, values) for the inputs of the window of output `o`, in row-major order.
template <int kPack, class T, class F>
SG_HD void each_input(const PoolGeometry& g, const Place::At& o, const T* x, F&& f) {
  const Window w(g, o.y, o.x);
  for (std::int64_t r = w.y0; r < w.y1; ++r)
    for (std::int64_t c = w.x0; c < w.x1; ++c)
      f((r - w.top) * g.kw + c - w.left,
        load<kPack>(x + ((o.n * g.h + r) * g.w + c) * g.c + o.c * kPack));
}

struct Strides {
  Divider rows, columns;
  explicit Strides(const PoolGeometry& g) : rows(g.sh), columns(g.sw) {}
};

// f(first element, place in the window) for the outputs whose windows input `in` is in.
template <int kPack, class F>
SG_HD void each_output(const PoolGeometry& g, const Strides& strides, const Place::At& in, F&& f) {
  const Covering rows(strides.rows, g.kh, g.ph, g.oh, in.y);
  const Covering columns(strides.columns, g.kw, g.pw, g.ow, in.x);
  for (std::int64_t r = rows.first; r < rows.last; ++r)
    for (std::int64_t c = columns.first; c < columns.last; ++c)
      f(((in.n * g.oh + r) * g.ow + c) * g.c + in.c * kPack,
        (in.y + g.ph - r * g.sh) * g.kw + in.x + g.pw - c * g.sw);
}

template <class T, int kPack>
struct Sums {
  using C = compute_t<T>;
  C v[kPack] = {};
  SG_HD void add(const Values<T, kPack>& values) {
    for (int k = 0; k < kPack; ++k) v[k] = v[k] + static_cast<C>(values.v[k]);
  }
  SG_HD void scale(C factor) {
    for (int k = 0; k < kPack; ++k) v[k] = v[k] * factor;
  }
  SG_HD Values<T, kPack> values() const {
    Values<T, kPack> result;
    for (int k = 0; k < kPack; ++k) result.v[k] = static_cast<T>(v[k]);
    return result;
  }
};

template <class T, class I, int kPack>
struct MaxPool {
  using C = compute_t<T>;
  PoolGeometry g;
  Place place;
  const T* x;
  T* y;
  I* index;

  SG_HD void operator()(std::int64_t i) const {
    Values<T, kPack> best{};
    Values<I, kPack> at{};
    bool any = false;
    each_input<kPack>(g, place.of(i), x, [&](std::int64_t here, const Values<T, kPack>& v) {
      for (int k = 0; k < kPack; ++k) {
        const C value = static_cast<C>(v.v[k]);
        // A later element wins only if it is greater, or NaN.
        const bool wins = !any || value > static_cast<C>(best.v[k]) || value != value;
        best.v[k] = wins ? v.v[k] : best.v[k];
        at.v[k] = wins ? static_cast<I>(here) : at.v[k];
      }
      any = true;
    });
    store(y + i * kPack, best);
    store(index + i * kPack, at);
  }
};

template <class T, class I, int kPack>
struct MaxPoolGrad {
  using C = compute_t<T>;
  PoolGeometry g;
  Place place;
  Strides strides;
  const T* dy;
  const I* index;
  T* dx;

  SG_HD void operator()(std::int64_t i) const {
    Sums<T, kPack> sums;
    each_output<kPack>(g, strides, place.of(i), [&](std::int64_t from, std::int64_t here) {
      const Values<I, kPack> at = load<kPack>(index + from);
      const Values<T, kPack> v = load<kPack>(dy + from);
      for (int k = 0; k < kPack; ++k)
        if (at.v[k] == static_cast<I>(here)) sums.v[k] = sums.v[k] + static_cast<C>(v.v[k]);
    });
    store(dx + i * kPack, sums.values());
  }
};

template <class T, int kPack>
struct AvgPool {
  PoolGeometry g;
  Place place;
  compute_t<T> scale;
  const T* x;
  T* y;

  SG_HD void operator()(std::int64_t i) const {
    Sums<T, kPack> sums;
    each_input<kPack>(g, place.of(i), x,
                      [&](std::int64_t, const Values<T, kPack>& v) { sums.add(v); });
    sums.scale(scale);
    store(y + i * kPack, sums.values());
  }
};

template <class T, int kPack>
struct AvgPoolGrad {
  PoolGeometry g;
  Place place;
  Strides strides;
  compute_t<T> scale;
  const T* dy;
  T* dx;

  SG_HD void operator()(std::int64_t i) const {
    Sums<T, kPack> sums;
    each_output<kPack>(g, strides, place.of(i),
                       [&](std::int64_t from, std::int64_t) { sums.add(load<kPack>(dy + from)); });
    sums.scale(scale);
    store(dx + i * kPack, sums.values());
  }
};

template <class T>
struct PlaneMean {
  using C = compute_t<T>;
  std::int64_t area;
  const T* x;
  T* y;
  template <class Team>
  SG_HD void operator()(const Team& team, std::int64_t r) const {
    const T* const from = x + r * area;
    const C sum =
        team.template sum<C>(area, [&](std::int64_t i) { return static_cast<C>(from[i]); });
    if (team.first()) y[r] = static_cast<T>(sum * (C(1) / static_cast<C>(area)));
  }
};

template <class C>
C share(const PoolGeometry& g) {
  return C(1) / static_cast<C>(g.kh * g.kw);
}

std::int64_t outputs(const PoolGeometry& g) { return g.n * g.oh * g.ow * g.c; }
std::int64_t inputs(const PoolGeometry& g) { return g.n * g.h * g.w * g.c; }

template <class F>
void visit_both(DType dtype, DType index_dtype, F&& f) {
  visit_floating(dtype, [&](auto type) {
    if (index_dtype == DType::u8)
      f(type, Type<std::uint8_t>{});
    else
      f(type, Type<std::int32_t>{});
  });
}

}  // namespace

void max_pool(const Launch& on, DType dtype, DType index_dtype, const PoolGeometry& g,
              const void* x, void* y, void* index) {
  visit_both(dtype, index_dtype, [&](auto type, auto index_type) {
    using T = typename decltype(type)::type;
    using I = typename decltype(index_type)::type;
    with_pack<T>(g.c, {x, y, index}, [&]<int kPack>(Count<kPack>) {
      for_each(on, outputs(g) / kPack,
               MaxPool<T, I, kPack>{g, Place(g, kPack, g.oh, g.ow), static_cast<const T*>(x),
                                    static_cast<T*>(y), static_cast<I*>(index)});
    });
  });
}

void max_pool_grad(const Launch& on, DType dtype, DType index_dtype, const PoolGeometry& g,
                   const void* dy, const void* index, void* dx) {
  visit_both(dtype, index_dtype, [&](auto type, auto index_type) {
    using T = typename decltype(type)::type;
    using I = typename decltype(index_type)::type;
    with_pack<T>(g.c, {dy, index, dx}, [&]<int kPack>(Count<kPack>) {
      for_each(on, inputs(g) / kPack,
               MaxPoolGrad<T, I, kPack>{g, Place(g, kPack, g.h, g.w), Strides(g),
                                        static_cast<const T*>(dy), static_cast<const I*>(index),
                                        static_cast<T*>(dx)});
    });
  });
}

void avg_pool(const Launch& on, DType dtype, const PoolGeometry& g, const void* x, void* y) {
  visit_floating(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    with_pack<T>(g.c, {x, y}, [&]<int kPack>(Count<kPack>) {
      for_each(on, outputs(g) / kPack,
               AvgPool<T, kPack>{g, Place(g, kPack, g.oh, g.ow), share<compute_t<T>>(g),
                                 static_cast<const T*>(x), static_cast<T*>(y)});
    });
  });
}

void avg_pool_grad(const Launch& on, DType dtype, const PoolGeometry& g, const void* dy, void* dx) {
  visit_floating(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    with_pack<T>(g.c, {dy, dx}, [&]<int kPack>(Count<kPack>) {
      for_each(
          on, inputs(g) / kPack,
          AvgPoolGrad<T, kPack>{g, Place(g, kPack, g.h, g.w), Strides(g), share<compute_t<T>>(g),
                                static_cast<const T*>(dy), static_cast<T*>(dx)});
    });
  });
}

void plane_means(const Launch& on, DType dtype, std::int64_t planes, std::int64_t area,
                 const void* x, void* y) {
  visit_floating(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    for_rows(on, planes, area, PlaneMean<T>{area, static_cast<const T*>(x), static_cast<T*>(y)});
  });
}

}  // namespace sg::cuda
