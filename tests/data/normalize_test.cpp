#include "data/normalize.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "support.h"

namespace sg::data {
namespace {

constexpr std::array<std::pair<double, double>, 4> kSettings = {
    {{0.5, 0.5}, {0.0, 1.0}, {0.4914, 0.2470}, {0.1307, 0.3081}}};

std::vector<std::uint8_t> all_bytes() {
  std::vector<std::uint8_t> bytes(256);
  std::iota(bytes.begin(), bytes.end(), std::uint8_t{0});
  return bytes;
}

TEST(Normalize, HasPyTorchsBits) {
  const std::string golden = read_file(SG_TEST_DATA "/normalize.bin");
  ASSERT_EQ(golden.size(), 4u * 256u * (4 + 8));
  std::vector<float> f32(256);
  std::vector<double> f64(256);
  for (std::size_t s = 0; s < kSettings.size(); ++s) {
    const auto [mean, deviation] = kSettings[s];
    Normalizer(DType::f32, mean, deviation)(all_bytes(), f32.data());
    EXPECT_EQ(std::memcmp(f32.data(), golden.data() + s * 1024, 1024), 0) << mean;
    Normalizer(DType::f64, mean, deviation)(all_bytes(), f64.data());
    EXPECT_EQ(std::memcmp(f64.data(), golden.data() + 4096 + s * 2048, 2048), 0) << mean;
  }
}

TEST(Normalize, FastKernelHasTheBitsOfTheThreeOperations) {
  for (const auto& [mean, deviation] :
       {std::pair(0.5f, 0.5f), {0.25f, 2.0f}, {0.449f, 0.25f}, {0.0f, 1.0f}}) {
    std::vector<float> got(256);
    Normalizer(DType::f32, mean, deviation)(all_bytes(), got.data());
    for (int x = 0; x < 256; ++x) {
      const float pixel = static_cast<float>(x) / 255.0f;
      const float expected = (pixel - mean) / deviation;
      EXPECT_EQ(std::bit_cast<std::uint32_t>(got[static_cast<std::size_t>(x)]),
                std::bit_cast<std::uint32_t>(expected))
          << x << " with " << mean << ", " << deviation;
    }
  }
}

TEST(Normalize, AnyLengthAndNothingBeyond) {
  const auto bytes = all_bytes();
  std::vector<float> whole(256);
  const Normalizer normalize(DType::f32, 0.5, 0.5);
  normalize(bytes, whole.data());
  for (const std::size_t n : {0, 1, 3, 15, 16, 17, 63, 65, 200}) {
    std::vector<float> out(n + 1, -7.0f);
    normalize(std::span(bytes).first(n), out.data());
    EXPECT_TRUE(
        std::equal(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(n), whole.begin()));
    EXPECT_EQ(out[n], -7.0f);
  }
}

TEST(Normalize, SixteenBitsAreTheRoundedFloats) {
  std::vector<float> f32(256);
  std::vector<bf16> b(256);
  std::vector<f16> h(256);
  Normalizer(DType::f32, 0.5, 0.5)(all_bytes(), f32.data());
  Normalizer(DType::bf16, 0.5, 0.5)(all_bytes(), b.data());
  Normalizer(DType::f16, 0.5, 0.5)(all_bytes(), h.data());
  for (std::size_t i = 0; i < 256; ++i) {
    EXPECT_EQ(b[i].bits, bf16(f32[i]).bits);
    EXPECT_EQ(h[i].bits, f16(f32[i]).bits);
  }
}

TEST(Normalize, Errors) {
  expect_contains(error_of([] { Normalizer(DType::i64, 0.5, 0.5); }),
                  "[normalize] needs a floating dtype, got i64");
  EXPECT_EQ(
      error_of([] { Normalizer(DType::f32, 0.5, 0.0); }),
      "[normalize] mean 0.5 and deviation 0; expected finite numbers and a positive deviation");
  const double nan = std::numeric_limits<double>::quiet_NaN();
  expect_contains(error_of([&] { Normalizer(DType::f32, nan, 1); }), "expected finite numbers");
}

}  // namespace
}  // namespace sg::data
