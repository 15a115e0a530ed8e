// Small helpers of the tests.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace sg::test {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();
inline constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// The text of the exception that f throws, or "no error".
std::string error_of(const std::function<void()>& f);

/// Fixed pseudo-random values in [low, high), a function of shape and seed; floating dtypes.
Tensor random(const Shape& shape, DType dtype = DType::f64, std::uint64_t seed = 0, double low = -2,
              double high = 2);

/// The same values in another memory order: dimensions stored in reverse, or every second element
/// of a larger block.
Tensor reversed_order(const Tensor& x);
Tensor every_second(const Tensor& x);

/// x itself and the same values in other memory orders (channels-last for four dimensions, too).
std::vector<Tensor> layouts(const Tensor& x);
/// All indices of a shape in row-major order.
std::vector<std::vector<std::int64_t>> indices(const Shape& shape);
/// The element at an index of a shape that x broadcasts to.
double at(const Tensor& x, const std::vector<std::int64_t>& index);

/// Fails the test unless shapes are equal and |a - b| <= atol + rtol |b| everywhere (NaN equals
/// NaN, infinities theirs).
void expect_close(const Tensor& a, const Tensor& b, double rtol, double atol);
/// Fails the test unless shapes, dtypes and all bits are equal.
void expect_same_bits(const Tensor& a, const Tensor& b);

/// Runs f with `threads` compute threads in the current rank.
void with_threads(int threads, const std::function<void()>& f);

}  // namespace sg::test
