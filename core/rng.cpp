#include "core/rng.h"

#include <cmath>
#include <numbers>

namespace sg {

std::array<double, 2> philox_normal(std::uint64_t key, std::uint64_t counter_low,
                                    std::uint64_t counter_high) {
  const auto words = philox(key, counter_low, counter_high);
  const double u = 1.0 - uniform_double(words[0], words[1]);  // in (0, 1]: the logarithm is finite
  const double angle = 2 * std::numbers::pi * uniform_double(words[2], words[3]);
  const double radius = std::sqrt(-2 * std::log(u));
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

}  // namespace sg
