// Batch normalisation. Statistics: differences from a value of the channel, summed in short runs
// and then in double, so that a mean far from zero costs no precision.
#include "core/cuda/any_dtype.h"
#include "core/cuda/column_sums.h"
#include "core/cuda/divide.h"
#include "core/cuda/kernels_image.h"
#include "core/cuda/pack.h"
#include "core/kernels/math.h"

namespace sg::cuda {
namespace {

// What y = (x - mean) scale + bias needs of a channel. Backward computes the mask of relu again
// with this, so forward and backward agree to the last bit.
template <class C>
struct Channel {
  C mean, scale, bias;
  SG_HD C affine(C x) const { return (x - mean) * scale + bias; }
};

template <class C>
struct Factors {
  const C *mean, *invstd, *weight, *bias;
  bool relu;
  explicit Factors(const BatchNormFactors& f)
      : mean(static_cast<const C*>(f.mean)),
        invstd(static_cast<const C*>(f.invstd)),
        weight(static_cast<const C*>(f.weight)),
        bias(static_cast<const C*>(f.bias)),
        relu(f.relu) {}
  SG_HD Channel<C> of(std::int64_t c) const {
    return {mean[c], weight != nullptr ? weight[c] * invstd[c] : invstd[c],
            bias != nullptr ? bias[c] : C(0)};
  }
  SG_HD C masked(const Channel<C>& channel, C x, C dy) const {
    return relu && !(channel.affine(x) > C(0)) ? C(0) : dy;
  }
};

// A vector of any floating dtype, in double.
struct AnyVector {
  ChannelVector v;
  SG_HD double get(std::int64_t c) const { return get_value(v.data, v.dtype, c * v.stride); }
  SG_HD void set(std::int64_t c, double value) const {
    if (v.data != nullptr) put_value(v.data, v.dtype, c * v.stride, value);
  }
};

// ---- sums over a channel

template <class T>
struct Squares {
  using C = compute_t<T>;
  static constexpr int kSums = 2;
  const T* x;
  std::int64_t area;  // between channels' first values
  // The first value: near enough to the mean.
  SG_HD C channel(std::int64_t c) const { return static_cast<C>(x[c * area]); }
  SG_HD void add(const C& shift, std::int64_t i, C* sums) const {
    const C d = static_cast<C>(x[i]) - shift;
    sums[0] = sums[0] + d;
    sums[1] = sums[1] + d * d;
  }
};

template <class T>
struct Gradients {
  using C = compute_t<T>;
  static constexpr int kSums = 2;
  const T *x, *dy;
  Factors<C> factors;
  SG_HD auto channel(std::int64_t c) const { return factors.of(c); }
  template <class Ch>
  SG_HD void add(const Ch& channel, std::int64_t i, C* sums) const {
    const C v = static_cast<C>(x[i]);
    const C g = factors.masked(channel, v, static_cast<C>(dy[i]));
    sums[0] = sums[0] + g;
    sums[1] = sums[1] + g * (v - channel.mean);
  }
};

// The first stage for row-major images: a team a plane.
template <class Terms>
struct PlaneSums {
  using C = typename Terms::C;
  Terms terms;
  std::int64_t channels, area;
  double* partial;  // [kSums][images][channels]
  std::int64_t between;
  template <class Team>
  SG_HD void operator()(const Team& team, std::int64_t r) const {
    const auto channel = terms.channel(r % channels);
    for (int s = 0; s < Terms::kSums; ++s) {
      const double total = team.template sum<double>(area, [&](std::int64_t i) {
        C sums[Terms::kSums] = {};
        terms.add(channel, r * area + i, sums);
        return static_cast<double>(sums[s]);
      });
      if (team.first()) partial[s * between + r] = total;
    }
  }
};

template <class Terms>
void sum_channels(const Launch& on, const BatchNormLayout& l, const Terms& terms,
                  const ColumnParts& parts, double* partial) {
  if (l.last) return partial_sums(on, parts, l.count(), terms, partial);
  for_rows(on, l.images * l.channels, l.area,
           PlaneSums<Terms>{terms, l.channels, l.area, partial, parts.size()});
}

// ---- what a team makes of a channel's sums

template <class T>
struct FinishStatistics {
  using C = compute_t<T>;
  FoldPartials partials;
  Squares<T> terms;
  double count, eps, momentum;
  C *mean, *invstd;
  AnyVector running_mean, running_var;

  template <class Team>
  SG_HD void operator()(const Team& team, std::int64_t c) const {
    const double first = partials.sum(team, 0, c), second = partials.sum(team, 1, c);
    if (!team.first()) return;
    const double shifted = first / count;
    const C m = static_cast<C>(static_cast<double>(terms.channel(c)) + shifted);
    const double spread = second / count - shifted * shifted;
    // A NaN stays one.
    const C var = static_cast<C>(spread < 0 ? 0.0 : spread);
    mean[c] = m;
    invstd[c] = static_cast<C>(1 / kernels::math::sqrt(static_cast<double>(var) + eps));
    move(running_mean, c, static_cast<double>(m));
    move(running_var, c, static_cast<double>(var) * (count / (count - 1)));
  }
  SG_HD void move(const AnyVector& running, std::int64_t c, double latest) const {
    if (running.v.data != nullptr)
      running.set(c, (1 - momentum) * running.get(c) + momentum * latest);
  }
};

template <class C>
struct Given {
  AnyVector running_mean, running_var;
  double eps;
  C *mean, *invstd;
  SG_HD void operator()(std::int64_t c) const {
    mean[c] = static_cast<C>(running_mean.get(c));
    invstd[c] = static_cast<C>(1 / kernels::math::sqrt(running_var.get(c) + eps));
  }
};

template <class C>
struct FinishGradients {
  FoldPartials partials;
  const C* invstd;
  double count;
  AnyVector weight_grad, bias_grad;
  C* slopes;  // [2][channels]
  std::int64_t channels;

  template <class Team>
  SG_HD void operator()(const Team& team, std::int64_t c) const {
    const double first = partials.sum(team, 0, c), second = partials.sum(team, 1, c);
    if (!team.first()) return;
    const double inverse = static_cast<double>(invstd[c]);
    weight_grad.set(c, second * inverse);
    bias_grad.set(c, first);
    slopes[c] = static_cast<C>(first / count);
    slopes[channels + c] = static_cast<C>(second / count * inverse * inverse);
  }
};

// ---- maps over the image

// The channel of each value of a pack: neighbours channels-last, one channel row-major.
struct ChannelOf {
  Divider inner, channels;
  bool last;
  ChannelOf(const BatchNormLayout& l, int pack)
      : inner(l.last ? 1 : l.area / pack),
        channels(l.last ? l.channels / pack : l.channels),
        last(l.last) {}
  SG_HD std::int64_t first(std::int64_t i, int pack) const {
    std::int64_t rest = inner.quotient(i);
    const std::int64_t c = channels.split(rest);
    return last ? c * pack : c;
  }
};

template <class T, int kPack>
struct Normalize {
  using C = compute_t<T>;
  ChannelOf channel_of;
  Factors<C> factors;
  const T* x;
  T* y;
  SG_HD void operator()(std::int64_t i) const {
    const std::int64_t c = channel_of.first(i, kPack);
    Values<T, kPack> v = load<kPack>(x + i * kPack);
    Channel<C> channel = factors.of(c);
    for (int k = 0; k < kPack; ++k) {
      if (k > 0 && channel_of.last) channel = factors.of(c + k);
      const C value = channel.affine(static_cast<C>(v.v[k]));
      v.v[k] = static_cast<T>(factors.relu && value < C(0) ? C(0) : value);
    }
    store(y + i * kPack, v);
  }
};

template <class T, int kPack>
struct InputGrad {
  using C = compute_t<T>;
  ChannelOf channel_of;
  Factors<C> factors;
  const C* slopes;
  std::int64_t channels;
  const T *x, *dy;
  T* dx;
  SG_HD void operator()(std::int64_t i) const {
    const std::int64_t first = channel_of.first(i, kPack);
    const Values<T, kPack> v = load<kPack>(x + i * kPack), g = load<kPack>(dy + i * kPack);
    Values<T, kPack> result;
    for (int k = 0; k < kPack; ++k) {
      const std::int64_t c = channel_of.last ? first + k : first;
      const Channel<C> channel = factors.of(c);
      const C value = static_cast<C>(v.v[k]);
      C grad = factors.masked(channel, value, static_cast<C>(g.v[k]));
      if (slopes != nullptr)
        grad = (grad - slopes[c]) - (value - channel.mean) * slopes[channels + c];
      result.v[k] = static_cast<T>(channel.scale * grad);
    }
    store(dx + i * kPack, result);
  }
};

template <class T, class F>
void each_value(const Launch& on, const BatchNormLayout& l,
                std::initializer_list<const void*> pointers, F&& make) {
  with_pack<T>(l.last ? l.channels : l.area, pointers, [&]<int kPack>(Count<kPack> pack) {
    for_each(on, l.count() * l.channels / kPack, make(pack));
  });
}

}  // namespace

ColumnParts batch_norm_parts(const BatchNormLayout& l) {
  return l.last ? column_parts(l.count(), l.channels)
                : ColumnParts{l.images, l.channels, l.channels};
}

void batch_norm_statistics(const Launch& on, DType dtype, const BatchNormLayout& l, const void* x,
                           double* partial, double eps, void* mean, void* invstd, double momentum,
                           const ChannelVector& running_mean, const ChannelVector& running_var) {
  visit_floating(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    const Squares<T> terms{static_cast<const T*>(x), l.last ? 1 : l.area};
    const ColumnParts parts = batch_norm_parts(l);
    sum_channels(on, l, terms, parts, partial);
    for_rows(on, l.channels, parts.per_channel(),
             FinishStatistics<T>{FoldPartials(parts, partial),
                                 terms,
                                 static_cast<double>(l.count()),
                                 eps,
                                 momentum,
                                 static_cast<C*>(mean),
                                 static_cast<C*>(invstd),
                                 {running_mean},
                                 {running_var}});
  });
}

void batch_norm_given(const Launch& on, DType dtype, std::int64_t channels, double eps,
                      const ChannelVector& running_mean, const ChannelVector& running_var,
                      void* mean, void* invstd) {
  visit_wide(dtype, [&]<class C>(Type<C>) {
    for_each(
        on, channels,
        Given<C>{
            {running_mean}, {running_var}, eps, static_cast<C*>(mean), static_cast<C*>(invstd)});
  });
}

void batch_norm_normalize(const Launch& on, DType dtype, const BatchNormLayout& l, const void* x,
                          const BatchNormFactors& factors, void* y) {
  visit_floating(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    each_value<T>(on, l, {x, y}, [&]<int kPack>(Count<kPack>) {
      return Normalize<T, kPack>{ChannelOf(l, kPack), Factors<compute_t<T>>(factors),
                                 static_cast<const T*>(x), static_cast<T*>(y)};
    });
  });
}

void batch_norm_sums(const Launch& on, DType dtype, const BatchNormLayout& l, const void* x,
                     const void* dy, const BatchNormFactors& factors, double* partial,
                     const ChannelVector& weight_grad, const ChannelVector& bias_grad,
                     void* slopes) {
  visit_floating(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    const ColumnParts parts = batch_norm_parts(l);
    sum_channels(
        on, l,
        Gradients<T>{static_cast<const T*>(x), static_cast<const T*>(dy), Factors<C>(factors)},
        parts, partial);
    for_rows(on, l.channels, parts.per_channel(),
             FinishGradients<C>{FoldPartials(parts, partial),
                                static_cast<const C*>(factors.invstd),
                                static_cast<double>(l.count()),
                                {weight_grad},
                                {bias_grad},
                                static_cast<C*>(slopes),
                                l.channels});
  });
}

void batch_norm_input_grad(const Launch& on, DType dtype, const BatchNormLayout& l, const void* x,
                           const void* dy, const BatchNormFactors& factors, const void* slopes,
                           void* dx) {
  visit_floating(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    each_value<T>(on, l, {x, dy, dx}, [&]<int kPack>(Count<kPack>) {
      return InputGrad<T, kPack>{
          ChannelOf(l, kPack), Factors<C>(factors),      static_cast<const C*>(slopes),
          l.channels,          static_cast<const T*>(x), static_cast<const T*>(dy),
          static_cast<T*>(dx)};
    });
  });
}

}  // namespace sg::cuda
