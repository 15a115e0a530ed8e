#include "core/rng.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace sg {
namespace {

using Words = std::array<std::uint32_t, 4>;

// The known answers that come with Random123 1.14 (kat_vectors, philox4x32 10).
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox(0, 0, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox(~0ull, ~0ull, ~0ull), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, UniformValuesStayInRange) {
  EXPECT_EQ(uniform_float(0), 0.0f);
  EXPECT_LT(uniform_float(~0u), 1.0f);
  EXPECT_EQ(uniform_double(0, 0), 0.0);
  EXPECT_LT(uniform_double(~0u, ~0u), 1.0);
  double total = 0;
  for (std::uint64_t i = 0; i < 100'000; ++i)
    total += uniform_double(philox(1, i, 2)[0], philox(1, i, 2)[1]);
  EXPECT_NEAR(total / 100'000, 0.5, 0.005);  // five standard deviations
}

TEST(Philox, NormalValuesHaveTheRightMoments) {
  double sum = 0, squares = 0, cubes = 0, fourth = 0, product = 0;
  constexpr int kPairs = 100'000;
  for (std::uint64_t i = 0; i < kPairs; ++i) {
    const auto [a, b] = philox_normal(7, i, 3);
    for (const double z : {a, b}) {
      sum += z;
      squares += z * z;
      cubes += z * z * z;
      fourth += z * z * z * z;
    }
    product += a * b;
  }
  const double n = 2.0 * kPairs;
  EXPECT_NEAR(sum / n, 0, 0.012);
  EXPECT_NEAR(squares / n, 1, 0.016);
  EXPECT_NEAR(cubes / n, 0, 0.045);
  EXPECT_NEAR(fourth / n, 3, 0.11);
  EXPECT_NEAR(product / kPairs, 0, 0.016);
}

TEST(Keys, NamesAndMixturesDiffer) {
  static_assert(name_key("") == 0xcbf29ce484222325ull);
  static_assert(name_key("a") == 0xaf63dc4c8601ec8cull);  // FNV-1a's published test
  std::set<std::uint64_t> keys;
  for (std::uint64_t a = 0; a < 40; ++a)
    for (std::uint64_t b = 0; b < 40; ++b) keys.insert(mix_keys(a, b));
  EXPECT_EQ(keys.size(), 1600u);
}

}  // namespace
}  // namespace sg
