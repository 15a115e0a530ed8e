#include "nn/init.h"

#include <algorithm>
#include <cmath>

#include "core/rng.h"

namespace sg::nn {
namespace {

// One Philox counter makes two elements: uniform numbers of 53 bits, or a pair of Box and Muller's
// transform.
template <class Pair, class F>
void fill_pairs(std::int64_t begin, std::span<double> out, Pair&& pair, F&& f) {
  const std::int64_t end = begin + std::ssize(out);
  for (std::int64_t i = begin; i < end;) {
    const auto two = pair(static_cast<std::uint64_t>(i / 2));
    do {
      out[static_cast<std::size_t>(i - begin)] = f(two[static_cast<std::size_t>(i % 2)]);
      ++i;
    } while (i % 2 != 0 && i < end);
  }
}

void fill_uniform(const FillContext& context, std::int64_t begin, std::span<double> out, double low,
                  double high) {
  const std::uint64_t key = context.key();
  fill_pairs(
      begin, out,
      [key](std::uint64_t counter) {
        const auto words = philox(key, counter, 0);
        return std::array{uniform_double(words[0], words[1]), uniform_double(words[2], words[3])};
      },
      [low, high](double u) { return low + (high - low) * u; });
}

void fill_normal(const FillContext& context, std::int64_t begin, std::span<double> out, double mean,
                 double std) {
  const std::uint64_t key = context.key();
  fill_pairs(
      begin, out, [key](std::uint64_t counter) { return philox_normal(key, counter, 0); },
      [mean, std](double z) { return mean + std * z; });
}

double fan(const FillContext& context, FanMode mode) {
  const Fans fans = fans_of(context.shape);
  return static_cast<double>(mode == FanMode::in ? fans.in : fans.out);
}

// A weight without elements has no fan to divide by, and no values either.
double ratio(double numerator, double denominator) {
  return denominator > 0 ? std::sqrt(numerator / denominator) : 0;
}

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

// The x in [low, high] whose distribution function is p, by bisection: monotonous, and as exact as
// the function.
double inverse_normal_cdf(double p, double low, double high) {
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    (normal_cdf(middle) < p ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

}  // namespace

std::uint64_t FillContext::key() const { return mix_keys(seed, name_key(name)); }

void zeros(const FillContext&, std::int64_t, std::span<double> out) {
  std::fill(out.begin(), out.end(), 0.0);
}

void ones(const FillContext&, std::int64_t, std::span<double> out) {
  std::fill(out.begin(), out.end(), 1.0);
}

Init constant(double value) {
  return [value](const FillContext&, std::int64_t, std::span<double> out) {
    std::fill(out.begin(), out.end(), value);
  };
}

Init uniform(double low, double high) {
  SG_CHECK(low <= high, "[uniform] the range [{}, {}] is empty", low, high);
  return [=](const FillContext& context, std::int64_t begin, std::span<double> out) {
    fill_uniform(context, begin, out, low, high);
  };
}

Init normal(double mean, double std) {
  SG_CHECK(std >= 0, "[normal] std must be >= 0, got {}", std);
  return [=](const FillContext& context, std::int64_t begin, std::span<double> out) {
    fill_normal(context, begin, out, mean, std);
  };
}

Init truncated_normal(double mean, double std, double low, double high) {
  SG_CHECK(std > 0 && low < high,
           "[truncated_normal] std must be > 0 and the range not empty, got {} and "
           "[{}, {}]",
           std, low, high);
  const double a = (low - mean) / std, b = (high - mean) / std;
  const double from = normal_cdf(a), to = normal_cdf(b);
  SG_CHECK(to > from, "[truncated_normal] [{}, {}] is too far from mean {} with std {}", low, high,
           mean, std);
  return [=](const FillContext& context, std::int64_t begin, std::span<double> out) {
    fill_uniform(context, begin, out, from, to);
    const double left = std::max(a, -40.0), right = std::min(b, 40.0);
    for (double& x : out) x = mean + std * inverse_normal_cdf(x, left, right);
  };
}

Fans fans_of(const Shape& shape) {
  SG_CHECK(shape.size() >= 2,
           "[init] a weight of shape {} has no fan; it needs at least 2 dimensions, [out, in, ...]",
           shape);
  std::int64_t field = 1;
  for (int i = 2; i < shape.size(); ++i) field *= shape[i];
  return {.in = shape[1] * field, .out = shape[0] * field};
}

Init kaiming_uniform(double slope, FanMode mode) {
  return [=](const FillContext& context, std::int64_t begin, std::span<double> out) {
    const double bound = ratio(6, (1 + slope * slope) * fan(context, mode));
    fill_uniform(context, begin, out, -bound, bound);
  };
}

Init kaiming_normal(double slope, FanMode mode) {
  return [=](const FillContext& context, std::int64_t begin, std::span<double> out) {
    fill_normal(context, begin, out, 0, ratio(2, (1 + slope * slope) * fan(context, mode)));
  };
}

Init xavier_uniform(double gain) {
  return [=](const FillContext& context, std::int64_t begin, std::span<double> out) {
    const Fans fans = fans_of(context.shape);
    const double bound = gain * ratio(6, static_cast<double>(fans.in + fans.out));
    fill_uniform(context, begin, out, -bound, bound);
  };
}

Init xavier_normal(double gain) {
  return [=](const FillContext& context, std::int64_t begin, std::span<double> out) {
    const Fans fans = fans_of(context.shape);
    fill_normal(context, begin, out, 0, gain * ratio(2, static_cast<double>(fans.in + fans.out)));
  };
}

double default_bound(std::int64_t fan_in) { return ratio(1, static_cast<double>(fan_in)); }

}  // namespace sg::nn
