#include "core/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "core/kernels/elementwise.h"
#include "tests/support/isas.h"

namespace sg {
namespace {

constexpr float kFloatInfinity = std::numeric_limits<float>::infinity();
constexpr float kFloatNan = std::numeric_limits<float>::quiet_NaN();

// Values around every rounding boundary: each 16-bit value, its midpoints to the next, and a bit to
// both sides.
template <class H>
std::vector<float> interesting_floats() {
  std::vector<float> values{0.0f,     -0.0f,    1e-45f,   -1e-45f, 1e38f,          65503.9f,
                            65519.9f, 65520.0f, 65536.0f, 3.4e38f, kFloatInfinity, -kFloatInfinity};
  for (int bits = 0; bits < 0x10000; bits += 7) {
    H h;
    h.bits = static_cast<std::uint16_t>(bits);
    const float x = h;
    if (!std::isfinite(x)) continue;
    H next = h;
    ++next.bits;
    const float y = next;
    const float middle = static_cast<float>((static_cast<double>(x) + static_cast<double>(y)) / 2);
    for (const float v : {x, middle})
      for (const float w :
           {std::nextafter(v, -kFloatInfinity), v, std::nextafter(v, kFloatInfinity)})
        values.push_back(w);
  }
  return values;
}

// The value of a pattern without sign, in integer steps and double: float arithmetic may flush
// subnormals.
double value_of(std::uint32_t bits, int mantissa_bits, int exponent_bits) {
  const int exponent = static_cast<int>(bits >> mantissa_bits), most = (1 << exponent_bits) - 1;
  const double mantissa = static_cast<double>(bits & ((1u << mantissa_bits) - 1));
  const int bias = most / 2 + mantissa_bits;
  if (exponent == 0) return std::ldexp(mantissa, 1 - bias);
  if (exponent == most) return mantissa == 0 ? HUGE_VAL : std::nan("");
  return std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias);
}

// Rounding to nearest, ties to even, by searching the two neighbours.
std::uint16_t rounded(float x, int mantissa_bits, int exponent_bits) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(x);
  const double magnitude = value_of(u & 0x7fffffff, 23, 8);
  const auto sign = static_cast<std::uint32_t>(u >> 16) & 0x8000;
  const auto value = [&](std::uint32_t bits) {
    return value_of(bits, mantissa_bits, exponent_bits);
  };
  std::uint32_t low = 0, high = ((1u << exponent_bits) - 1) << mantissa_bits;  // infinity
  if (std::isinf(magnitude)) return static_cast<std::uint16_t>(sign | high);
  while (high - low > 1) {  // value(low) <= magnitude < value(high)
    const std::uint32_t middle = (low + high) / 2;
    (value(middle) <= magnitude ? low : high) = middle;
  }
  // Above the largest finite value the steps go on as below it.
  const double step =
      std::isinf(value(high)) ? value(low) - value(low - 1) : value(high) - value(low);
  const double rest = magnitude - value(low);
  const bool up = rest > step / 2 || (rest == step / 2 && (low & 1) != 0);
  return static_cast<std::uint16_t>(sign | (up ? high : low));
}

template <class H>
void check_scalar_conversion(int mantissa_bits, int exponent_bits) {
  for (const float x : interesting_floats<H>())
    ASSERT_EQ(H(x).bits, rounded(x, mantissa_bits, exponent_bits)) << x;
  EXPECT_TRUE(std::isnan(static_cast<float>(H(kFloatNan))));
  EXPECT_TRUE(std::isnan(static_cast<float>(H(-kFloatNan))));
  for (int bits = 0; bits < 0x10000; ++bits) {
    H h;
    h.bits = static_cast<std::uint16_t>(bits);
    const float x = h;
    if (std::isnan(x)) continue;
    ASSERT_EQ(H(x).bits, h.bits);
  }
}

TEST(DType, Bf16RoundsToNearestTiesToEven) {
  check_scalar_conversion<bf16>(7, 8);
  EXPECT_EQ(static_cast<float>(bf16(1.00390625f)), 1.0f);       // tie, down to even
  EXPECT_EQ(static_cast<float>(bf16(1.01171875f)), 1.015625f);  // tie, up to even
}

TEST(DType, F16RoundsToNearestTiesToEven) {
  check_scalar_conversion<f16>(10, 5);
  EXPECT_EQ(static_cast<float>(f16(65520.0f)), kFloatInfinity);
  EXPECT_EQ(static_cast<float>(f16(65519.0f)), 65504.0f);
  EXPECT_EQ(static_cast<float>(f16(0x1p-24f)), 0x1p-24f);
  EXPECT_EQ(static_cast<float>(f16(0x1p-25f)), 0.0f);
}

// The vectorized casts give the bits of the scalar ones, on every instruction set.
TEST(DType, VectorCastsAgreeWithScalarOnes) {
  test::for_each_isa([](const auto& tables) {
    const kernels::ConvertKernels& convert = tables.convert();
    std::vector<std::uint16_t> all(0x10000);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(i);
    std::vector<float> wide(all.size());
    const auto check = [&](auto half, auto to_float, auto to_half) {
      using H = decltype(half);
      to_float(all.data(), wide.data(), static_cast<std::int64_t>(all.size()));
      for (std::size_t i = 0; i < all.size(); ++i) {
        H h;
        h.bits = all[i];
        ASSERT_EQ(std::bit_cast<std::uint32_t>(wide[i]),
                  std::bit_cast<std::uint32_t>(static_cast<float>(h)))
            << i;
      }
      std::vector<float> values = interesting_floats<H>();
      values.push_back(kFloatNan);
      std::vector<std::uint16_t> narrow(values.size());
      to_half(values.data(), narrow.data(), static_cast<std::int64_t>(values.size()));
      for (std::size_t i = 0; i < values.size(); ++i)
        ASSERT_EQ(narrow[i], H(values[i]).bits) << values[i];
    };
    check(bf16(), convert.bf16_to_float, convert.float_to_bf16);
    check(f16(), convert.f16_to_float, convert.float_to_f16);
  });
}

TEST(DType, NamesAndSizes) {
  EXPECT_EQ(name_of(DType::bf16), "bf16");
  EXPECT_EQ(size_of(DType::f64), 8u);
  EXPECT_EQ(size_of(DType::f16), 2u);
  EXPECT_EQ(size_of(DType::u8), 1u);
  EXPECT_TRUE(is_floating(DType::f16));
  EXPECT_FALSE(is_floating(DType::i64));
  for (const DType d :
       {DType::f64, DType::f32, DType::bf16, DType::f16, DType::i64, DType::i32, DType::u8})
    visit(d, [&](auto type) { EXPECT_EQ(dtype_of<typename decltype(type)::type>, d); });
}

}  // namespace
}  // namespace sg
