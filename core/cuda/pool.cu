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

template <class T, class I, int kPack>
struct MaxPool {
  using C = compute_t<T>;
  PoolGeometry g;
  Place place;
  const T* x;
  T* y;
  I* index;

  SG_HD void operator()(std::int64_t i) const {
    const Place::At o = place.of(i);
    const Window w(g, o.y, o.x);
    Values<T, kPack> best{};
    Values<I, kPack> at{};
    bool any = false;
    for (std::int64_t r = w.y0; r < w.y1; ++r)
      for (std::int64_t c = w.x0; c < w.x1; ++c) {
        const auto here = static_cast<I>((r - w.top) * g.kw + c - w.left);
        const Values<T, kPack> v = load<kPack>(x + ((o.n * g.h + r) * g.w + c) * g.c + o.c * kPack);
        for (int k = 0; k < kPack; ++k) {
          const C value = static_cast<C>(v.v[k]);
          // A later element wins only if it is greater, or NaN.
          const bool wins = !any || value > static_cast<C>(best.v[k]) || value != value;
          best.v[k] = wins ? v.v[k] : best.v[k];
          at.v[k] = wins ? here : at.v[k];
        }
        any = true;
      }
    store(y + i * kPack, best);
    store(index + i * kPack, at);
  }
};

template <class T, class I, int kPack>
struct MaxPoolGrad {
  using C = compute_t<T>;
  PoolGeometry g;
  Place place;
  Divider sh, sw;
  const T* dy;
  const I* index;
  T* dx;

  SG_HD void operator()(std::int64_t i) const {
    const Place::At in = place.of(i);
    const Covering rows(sh, g.kh, g.ph, g.oh, in.y), columns(sw, g.kw, g.pw, g.ow, in.x);
    C sum[kPack] = {};
    for (std::int64_t r = rows.first; r < rows.last; ++r)
      for (std::int64_t c = columns.first; c < columns.last; ++c) {
        const std::int64_t from = ((in.n * g.oh + r) * g.ow + c) * g.c + in.c * kPack;
        const auto here = static_cast<I>((in.y + g.ph - r * g.sh) * g.kw + in.x + g.pw - c * g.sw);
        const Values<I, kPack> at = load<kPack>(index + from);
        const Values<T, kPack> v = load<kPack>(dy + from);
        for (int k = 0; k < kPack; ++k)
          if (at.v[k] == here) sum[k] = sum[k] + static_cast<C>(v.v[k]);
      }
    Values<T, kPack> result;
    for (int k = 0; k < kPack; ++k) result.v[k] = static_cast<T>(sum[k]);
    store(dx + i * kPack, result);
  }
};

template <class T, int kPack>
struct AvgPool {
  using C = compute_t<T>;
  PoolGeometry g;
  Place place;
  C scale;
  const T* x;
  T* y;

  SG_HD void operator()(std::int64_t i) const {
    const Place::At o = place.of(i);
    const Window w(g, o.y, o.x);
    C sum[kPack] = {};
    for (std::int64_t r = w.y0; r < w.y1; ++r)
      for (std::int64_t c = w.x0; c < w.x1; ++c) {
        const Values<T, kPack> v = load<kPack>(x + ((o.n * g.h + r) * g.w + c) * g.c + o.c * kPack);
        for (int k = 0; k < kPack; ++k) sum[k] = sum[k] + static_cast<C>(v.v[k]);
      }
    Values<T, kPack> result;
    for (int k = 0; k < kPack; ++k) result.v[k] = static_cast<T>(sum[k] * scale);
    store(y + i * kPack, result);
  }
};

template <class T, int kPack>
struct AvgPoolGrad {
  using C = compute_t<T>;
  PoolGeometry g;
  Place place;
  Divider sh, sw;
  C scale;
  const T* dy;
  T* dx;

  SG_HD void operator()(std::int64_t i) const {
    const Place::At in = place.of(i);
    const Covering rows(sh, g.kh, g.ph, g.oh, in.y), columns(sw, g.kw, g.pw, g.ow, in.x);
    C sum[kPack] = {};
    for (std::int64_t r = rows.first; r < rows.last; ++r)
      for (std::int64_t c = columns.first; c < columns.last; ++c) {
        const Values<T, kPack> v =
            load<kPack>(dy + ((in.n * g.oh + r) * g.ow + c) * g.c + in.c * kPack);
        for (int k = 0; k < kPack; ++k) sum[k] = sum[k] + static_cast<C>(v.v[k]);
      }
    Values<T, kPack> result;
    for (int k = 0; k < kPack; ++k) result.v[k] = static_cast<T>(sum[k] * scale);
    store(dx + i * kPack, result);
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
  visit_float(dtype, [&](auto type) {
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
               MaxPoolGrad<T, I, kPack>{g, Place(g, kPack, g.h, g.w), Divider(g.sh), Divider(g.sw),
                                        static_cast<const T*>(dy), static_cast<const I*>(index),
                                        static_cast<T*>(dx)});
    });
  });
}

void avg_pool(const Launch& on, DType dtype, const PoolGeometry& g, const void* x, void* y) {
  visit_float(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    with_pack<T>(g.c, {x, y}, [&]<int kPack>(Count<kPack>) {
      for_each(on, outputs(g) / kPack,
               AvgPool<T, kPack>{g, Place(g, kPack, g.oh, g.ow), share<compute_t<T>>(g),
                                 static_cast<const T*>(x), static_cast<T*>(y)});
    });
  });
}

void avg_pool_grad(const Launch& on, DType dtype, const PoolGeometry& g, const void* dy, void* dx) {
  visit_float(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    with_pack<T>(g.c, {dy, dx}, [&]<int kPack>(Count<kPack>) {
      for_each(on, inputs(g) / kPack,
               AvgPoolGrad<T, kPack>{g, Place(g, kPack, g.h, g.w), Divider(g.sh), Divider(g.sw),
                                     share<compute_t<T>>(g), static_cast<const T*>(dy),
                                     static_cast<T*>(dx)});
    });
  });
}

void plane_means(const Launch& on, DType dtype, std::int64_t planes, std::int64_t area,
                 const void* x, void* y) {
  visit_float(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    for_rows(on, planes, area, PlaneMean<T>{area, static_cast<const T*>(x), static_cast<T*>(y)});
  });
}

}  // namespace sg::cuda
