#include "core/kernels/batch_norm.h"

#include "core/kernels/simd.h"

namespace sg::kernels::SG_ISA {
namespace {

using std::int64_t;

// Rows a block: sums are taken in T over a block and added up in double (long enough to cost
// little, short enough to round little), and a block of all channels stays in the first-level
// cache.
constexpr int64_t kRows = 32;

// One channel's values, or a vector of them. Backward computes the mask of relu again with this
// function, so forward and backward agree to the last bit.
template <class T>
SG_HD Vector<T> affine(Vector<T> x, Vector<T> mean, Vector<T> scale, Vector<T> bias) {
  return multiply_add<T>(x - mean, scale, bias);
}

template <class T>
struct Channels {  // parameters of kLanes neighbouring channels, or of one channel in every lane
  Vector<T> mean, scale, bias;
  Channels(const BatchNormParams<T>& p, int64_t c)
      : mean(load(p.mean + c)), scale(load(p.scale + c)), bias(load(p.bias + c)) {}
  explicit Channels(const BatchNormParams<T>& p)
      : mean(splat(p.mean[0])), scale(splat(p.scale[0])), bias(splat(p.bias[0])) {}
};

template <class V>
SG_HD V relu(V y) {
  return y < V{} ? V{} : y;
}

// dy where y > 0, else 0.
template <class V>
SG_HD V masked(V dy, V y) {
  return y > V{} ? dy : V{};
}

// Loads the first `count` lanes, the others being 0.
template <class T>
SG_HD Vector<T> load_some(const T* p, int64_t count) {
  Vector<T> v{};
  std::memcpy(&v, p, static_cast<std::size_t>(count) * sizeof(T));
  return v;
}
template <class T>
SG_HD void store_some(T* p, Vector<T> v, int64_t count) {
  std::memcpy(p, &v, static_cast<std::size_t>(count) * sizeof(T));
}

// Calls f(load, store, lanes, first channel) for whole vectors of channels and then for the rest of
// them.
template <class T, class F>
SG_HD void each_channel_vector(int64_t c, F&& f) {
  constexpr int64_t kWidth = kLanes<T>;
  int64_t i = 0;
  for (; i + kWidth <= c; i += kWidth)
    f([](const T* p) { return load(p); }, [](T* p, Vector<T> v) { store(p, v); }, kWidth, i);
  if (i < c) {
    const int64_t rest = c - i;
    f([rest](const T* p) { return load_some(p, rest); },
      [rest](T* p, Vector<T> v) { store_some(p, v, rest); }, rest, i);
  }
}

template <class T>
struct Padded {  // parameters of the channels from c on, readable to a vector's length
  T mean[kLanes<T>] = {}, scale[kLanes<T>] = {}, bias[kLanes<T>] = {};
  Padded(const BatchNormParams<T>& p, int64_t c, int64_t lanes) {
    for (int64_t i = 0; i < lanes; ++i) {
      mean[i] = p.mean[c + i];
      scale[i] = p.scale[c + i];
      bias[i] = p.bias[c + i];
    }
  }
  Channels<T> channels() const { return Channels<T>({mean, scale, bias, false}, 0); }
};

template <class T>
SG_HD double lane_sum(Vector<T> v) {
  double total = 0;
  for (int i = 0; i < kLanes<T>; ++i) total += static_cast<double>(v[i]);
  return total;
}

// ---- channels-last: f runs over rows for one vector of channels.

template <class T>
void statistics_rows(const T* x, int64_t n, int64_t c, const T* shift, double* sum,
                     double* square) {
  for (int64_t first = 0; first < n; first += kRows) {
    const int64_t last = first + kRows < n ? first + kRows : n;
    each_channel_vector<T>(c, [&](auto get, auto, int64_t lanes, int64_t at) {
      const Vector<T> center = get(shift + at);
      Vector<T> s{}, q{};
      for (int64_t i = first; i < last; ++i) {
        const Vector<T> d = get(x + i * c + at) - center;
        s += d;
        q = multiply_add<T>(d, d, q);
      }
      for (int64_t k = 0; k < lanes; ++k) {
        sum[at + k] += static_cast<double>(s[k]);
        square[at + k] += static_cast<double>(q[k]);
      }
    });
  }
}

template <class T>
void normalize_rows(const T* x, T* y, int64_t n, int64_t c, const BatchNormParams<T>& p) {
  for (int64_t first = 0; first < n; first += kRows) {
    const int64_t last = first + kRows < n ? first + kRows : n;
    each_channel_vector<T>(c, [&](auto get, auto put, int64_t lanes, int64_t at) {
      const Padded<T> padded(p, at, lanes);
      const Channels<T> ch = padded.channels();
      for (int64_t i = first; i < last; ++i) {
        const Vector<T> v = affine<T>(get(x + i * c + at), ch.mean, ch.scale, ch.bias);
        put(y + i * c + at, p.relu ? relu(v) : v);
      }
    });
  }
}

template <class T>
void reduce_rows(const T* x, const T* dy, int64_t n, int64_t c, const BatchNormParams<T>& p,
                 double* sum, double* product) {
  for (int64_t first = 0; first < n; first += kRows) {
    const int64_t last = first + kRows < n ? first + kRows : n;
    each_channel_vector<T>(c, [&](auto get, auto, int64_t lanes, int64_t at) {
      const Padded<T> padded(p, at, lanes);
      const Channels<T> ch = padded.channels();
      Vector<T> s{}, q{};
      for (int64_t i = first; i < last; ++i) {
        const Vector<T> v = get(x + i * c + at);
        Vector<T> g = get(dy + i * c + at);
        if (p.relu) g = masked(g, affine<T>(v, ch.mean, ch.scale, ch.bias));
        s += g;
        q = multiply_add<T>(g, v - ch.mean, q);
      }
      for (int64_t k = 0; k < lanes; ++k) {
        sum[at + k] += static_cast<double>(s[k]);
        product[at + k] += static_cast<double>(q[k]);
      }
    });
  }
}

template <class T>
void input_gradient_rows(const T* x, const T* dy, T* dx, int64_t n, int64_t c,
                         const BatchNormParams<T>& p, const T* offset, const T* slope) {
  for (int64_t first = 0; first < n; first += kRows) {
    const int64_t last = first + kRows < n ? first + kRows : n;
    each_channel_vector<T>(c, [&](auto get, auto put, int64_t lanes, int64_t at) {
      const Padded<T> padded(p, at, lanes);
      const Channels<T> ch = padded.channels();
      const Vector<T> off = get(offset + at), minus_slope = -get(slope + at);
      for (int64_t i = first; i < last; ++i) {
        const Vector<T> v = get(x + i * c + at);
        Vector<T> g = get(dy + i * c + at);
        if (p.relu) g = masked(g, affine<T>(v, ch.mean, ch.scale, ch.bias));
        put(dx + i * c + at, ch.scale * multiply_add<T>(v - ch.mean, minus_slope, g - off));
      }
    });
  }
}

// ---- row-major: f runs over vectors of one channel's neighbouring values.

template <class T, class F>
SG_HD void each_vector(int64_t n, F&& f) {
  each_channel_vector<T>(n, f);
}

template <class T>
void statistics_run(const T* x, int64_t n, const T* shift, double* sum, double* square) {
  const Vector<T> center = splat(shift[0]);
  constexpr int64_t kChunk = kRows * kLanes<T>;
  for (int64_t first = 0; first < n; first += kChunk) {
    const int64_t size = n - first < kChunk ? n - first : kChunk;
    Vector<T> s{}, q{};
    each_vector<T>(size, [&](auto get, auto, int64_t lanes, int64_t i) {
      Vector<T> d = get(x + first + i) - center;
      if (lanes < kLanes<T>)
        for (int64_t k = lanes; k < kLanes<T>; ++k) d[k] = T(0);
      s += d;
      q = multiply_add<T>(d, d, q);
    });
    sum[0] += lane_sum<T>(s);
    square[0] += lane_sum<T>(q);
  }
}

template <class T>
void normalize_run(const T* x, T* y, int64_t n, const BatchNormParams<T>& p) {
  const Channels<T> ch(p);
  each_vector<T>(n, [&](auto get, auto put, int64_t, int64_t i) {
    const Vector<T> v = affine<T>(get(x + i), ch.mean, ch.scale, ch.bias);
    put(y + i, p.relu ? relu(v) : v);
  });
}

template <class T>
void reduce_run(const T* x, const T* dy, int64_t n, const BatchNormParams<T>& p, double* sum,
                double* product) {
  const Channels<T> ch(p);
  constexpr int64_t kChunk = kRows * kLanes<T>;
  for (int64_t first = 0; first < n; first += kChunk) {
    const int64_t size = n - first < kChunk ? n - first : kChunk;
    Vector<T> s{}, q{};
    each_vector<T>(size, [&](auto get, auto, int64_t, int64_t i) {
      const Vector<T> v = get(x + first + i);
      Vector<T> g = get(dy + first + i);  // lanes beyond the end are 0
      if (p.relu) g = masked(g, affine<T>(v, ch.mean, ch.scale, ch.bias));
      s += g;
      q = multiply_add<T>(g, v - ch.mean, q);
    });
    sum[0] += lane_sum<T>(s);
    product[0] += lane_sum<T>(q);
  }
}

template <class T>
void input_gradient_run(const T* x, const T* dy, T* dx, int64_t n, const BatchNormParams<T>& p,
                        const T* offset, const T* slope) {
  const Channels<T> ch(p);
  const Vector<T> off = splat(offset[0]), minus_slope = splat(-slope[0]);
  each_vector<T>(n, [&](auto get, auto put, int64_t, int64_t i) {
    const Vector<T> v = get(x + i);
    Vector<T> g = get(dy + i);
    if (p.relu) g = masked(g, affine<T>(v, ch.mean, ch.scale, ch.bias));
    put(dx + i, ch.scale * multiply_add<T>(v - ch.mean, minus_slope, g - off));
  });
}

// ---- c == 1 is a run in either layout.

template <class T>
void statistics(const T* x, int64_t n, int64_t c, const T* shift, double* sum, double* square) {
  if (c == 1) return statistics_run(x, n, shift, sum, square);
  statistics_rows(x, n, c, shift, sum, square);
}
template <class T>
void normalize(const T* x, T* y, int64_t n, int64_t c, const BatchNormParams<T>& p) {
  if (c == 1) return normalize_run(x, y, n, p);
  normalize_rows(x, y, n, c, p);
}
template <class T>
void reduce(const T* x, const T* dy, int64_t n, int64_t c, const BatchNormParams<T>& p, double* sum,
            double* product) {
  if (c == 1) return reduce_run(x, dy, n, p, sum, product);
  reduce_rows(x, dy, n, c, p, sum, product);
}
template <class T>
void input_gradient(const T* x, const T* dy, T* dx, int64_t n, int64_t c,
                    const BatchNormParams<T>& p, const T* offset, const T* slope) {
  if (c == 1) return input_gradient_run(x, dy, dx, n, p, offset, slope);
  input_gradient_rows(x, dy, dx, n, c, p, offset, slope);
}

template <class T>
constexpr BatchNormLoops<T> loops{&statistics<T>, &normalize<T>, &reduce<T>, &input_gradient<T>};

}  // namespace

const BatchNormTable& batch_norm_table() {
  static const BatchNormTable table{loops<float>, loops<double>};
  return table;
}

}  // namespace sg::kernels::SG_ISA
