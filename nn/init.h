// Initial values of parameters, equal in distribution to torch.nn.init's. A value is a function of
// (seed, parameter name, element) alone, never of a rank, a thread or an order, so any part of a
// parameter can be made by itself.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "core/shape.h"

namespace sg::nn {

struct FillContext {
  std::uint64_t seed = 0;
  std::string_view name;  ///< the parameter's full name, "layer1.0.conv1.weight"
  const Shape& shape;
  /// Keys the random numbers of this parameter.
  std::uint64_t key() const;
};

/// Writes elements [begin, begin + out.size()) of a parameter in row-major order; they are then
/// rounded to its dtype. Must give every element the same value however the parameter is cut, and
/// is called from several threads at once. It is called with an empty span when the parameter is
/// declared: shapes it has no values for throw there.
using Init = std::function<void(const FillContext&, std::int64_t begin, std::span<double> out)>;

void zeros(const FillContext& context, std::int64_t begin, std::span<double> out);
void ones(const FillContext& context, std::int64_t begin, std::span<double> out);
Init constant(double value);
/// U(low, high)
Init uniform(double low, double high);
/// N(mean, std^2)
Init normal(double mean = 0, double std = 1);
/// N(mean, std^2) kept to [low, high], by inversion of the distribution function.
Init truncated_normal(double mean = 0, double std = 1, double low = -2, double high = 2);

/// The number of inputs, and of outputs, that an element of a weight [out, in, receptive field...]
/// sees. Needs at least two dimensions.
struct Fans {
  std::int64_t in = 0, out = 0;
};
Fans fans_of(const Shape& shape);

enum class FanMode { in, out };
/// U(-b, b) with b = sqrt(6 / ((1 + slope^2) fan)) (He et al., "Delving deep into rectifiers",
/// 2015); `slope` is that of the leaky ReLU that follows. PyTorch's default for Linear and Conv2d
/// is slope = sqrt(5): b = 1 / sqrt(fan_in).
Init kaiming_uniform(double slope = 0, FanMode mode = FanMode::in);
/// N(0, s^2) with s = sqrt(2 / ((1 + slope^2) fan)).
Init kaiming_normal(double slope = 0, FanMode mode = FanMode::in);
/// U(-b, b) with b = gain sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010).
Init xavier_uniform(double gain = 1);
/// N(0, s^2) with s = gain sqrt(2 / (fan_in + fan_out)).
Init xavier_normal(double gain = 1);

/// PyTorch's default bound for the bias of a layer: 1 / sqrt(fan_in of its weight), 0 for none.
double default_bound(std::int64_t fan_in);

}  // namespace sg::nn
