#include "core/exact_sum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "core/check.h"
#include "core/rank.h"

namespace sg {
namespace {

using Limits = std::numeric_limits<double>;

ExactSum sum_of(const std::vector<double>& terms) {
  ExactSum sum;
  for (const double term : terms) sum.add(term);
  return sum;
}

// NaN patterns and the sign of zero count, too.
void expect_bits(double got, double expected) {
  EXPECT_EQ(std::bit_cast<std::uint64_t>(got), std::bit_cast<std::uint64_t>(expected))
      << got << " against " << expected;
}

// Finite doubles of every exponent, subnormals included.
double any_double(std::mt19937_64& random) {
  for (;;) {
    const auto x = std::bit_cast<double>(random());
    if (std::isfinite(x)) return x;
  }
}

TEST(ExactSum, OneTermComesBack) {
  std::mt19937_64 random(1);
  std::vector<double> terms{1.0,
                            -1.0,
                            0.1,
                            Limits::max(),
                            Limits::lowest(),
                            Limits::min(),
                            Limits::denorm_min(),
                            -Limits::denorm_min(),
                            std::nextafter(Limits::min(), 0.0),
                            0x1p52,
                            0x1p53,
                            0x1.fffffffffffffp-1022};
  for (int i = 0; i < 20000; ++i) terms.push_back(any_double(random));
  for (const double term : terms) expect_bits(sum_of({term}).value(), term);
  expect_bits(ExactSum().value(), 0.0);
  expect_bits(sum_of({-0.0}).value(), 0.0);
}

// 64-bit integers times a power of two have an exact sum of their own, and one rounding to double
// by the language.
TEST(ExactSum, RoundsToNearestEven) {
  std::mt19937_64 random(2);
  for (int trial = 0; trial < 20000; ++trial) {
    const int exponent = static_cast<int>(random() % 1900) - 1000;
    std::int64_t exact = 0;
    ExactSum sum;
    for (int i = 0; i < 9; ++i) {
      // Up to 53 bits each; small ones make ties and near-ties.
      const auto whole = static_cast<std::int64_t>(random()) >> (11 + random() % 53);
      exact += whole;
      sum.add(std::ldexp(static_cast<double>(whole), exponent));
    }
    expect_bits(sum.value(), std::ldexp(static_cast<double>(exact), exponent) + 0.0);
  }
  expect_bits(sum_of({1, 0x1p-53}).value(), 1.0);                     // tie to even
  expect_bits(sum_of({1, 0x1p-53, 0x1p-1074}).value(), 1 + 0x1p-52);  // above the tie, far away
  expect_bits(sum_of({1, 0x1p-53, -0x1p-1074}).value(), 1.0);         // below it
  expect_bits(sum_of({1 + 0x1p-52, 0x1p-53}).value(), 1 + 0x1p-51);   // tie to even, upwards
  expect_bits(sum_of({2 - 0x1p-52, 0x1p-53}).value(), 2.0);           // rounding into the exponent
  expect_bits(sum_of({-1, -0x1p-53, -0x1p-1074}).value(), -(1 + 0x1p-52));
}

// Made with Python: math.fsum of the terms, and Fraction for the last two, where fsum overflows.
TEST(ExactSum, KnownSums) {
  expect_bits(sum_of(std::vector<double>(10, 0.1)).value(), 1.0);
  std::vector<double> harmonic;
  for (int i = 1; i <= 1000; ++i) harmonic.push_back(1.0 / i);
  expect_bits(sum_of(harmonic).value(), 0x1.df11f45f4e61ap+2);
  expect_bits(sum_of({1e308, 1.0, -1e308, 1e-300}).value(), 1.0);
  expect_bits(sum_of({1e16, 1.0, 1e-16, -1e16}).value(), 1.0);
  expect_bits(sum_of({1e308, 1e308, -1.5e308}).value(), 0x1.1ccf385ebc8a0p+1022);
}

TEST(ExactSum, OverflowsOnlyInTheRounding) {
  const double max = Limits::max();
  expect_bits(sum_of({max, max}).value(), Limits::infinity());
  expect_bits(sum_of({-max, -max}).value(), -Limits::infinity());
  expect_bits(sum_of({max, max, max, -max, -max}).value(), max);
  expect_bits(sum_of({max, 0x1p969}).value(), max);  // below half a unit
  expect_bits(sum_of({max, 0x1p970}).value(),
              Limits::infinity());  // half a unit: to even, which is 2^1024
  ExactSum sum = sum_of({max});
  for (int i = 0; i < 60; ++i) sum.merge(ExactSum(sum));  // 2^60 of them
  expect_bits(sum.value(), Limits::infinity());
  ExactSum minus = sum_of({-max});
  for (int i = 0; i < 60; ++i) minus.merge(ExactSum(minus));
  sum.merge(minus);
  expect_bits(sum.value(), 0.0);
  EXPECT_EQ(sum, ExactSum());
}

TEST(ExactSum, OrderAndSplitDoNotMatter) {
  std::mt19937_64 random(3);
  std::vector<double> terms;
  for (int i = 0; i < 5000; ++i) terms.push_back(any_double(random));
  for (int i = 0; i < 5000; ++i)  // cancelling ones, where doubles would lose everything
    terms.push_back(std::ldexp(static_cast<double>(random() % 1000) - 500.0, 3));
  const ExactSum expected = sum_of(terms);
  for (int trial = 0; trial < 20; ++trial) {
    std::shuffle(terms.begin(), terms.end(), random);
    std::vector<ExactSum> parts(1 + random() % 8);
    for (const double term : terms) parts[random() % parts.size()].add(term);
    std::shuffle(parts.begin(), parts.end(), random);
    ExactSum total;
    for (const ExactSum& part : parts) total.merge_words(part.words());
    EXPECT_EQ(total.words(), expected.words());
    expect_bits(total.value(), expected.value());
  }
}

TEST(ExactSum, CarriesAndBorrowsTravelFar) {
  // -tiny below zero sets every digit; adding it back clears them all.
  ExactSum sum = sum_of({-Limits::denorm_min()});
  expect_bits(sum.value(), -Limits::denorm_min());
  EXPECT_EQ(sum.words()[33], ~std::uint64_t{0});
  sum.add(Limits::denorm_min());
  EXPECT_EQ(sum, ExactSum());
  sum.add(0x1p1000);
  sum.add(-0x1p-1074);
  expect_bits(sum.value(), 0x1p1000);
  sum.add(-0x1p1000);
  expect_bits(sum.value(), -0x1p-1074);
  // The same through merge.
  sum.merge(sum_of({0x1p-1074}));
  EXPECT_EQ(sum, ExactSum());
  sum.merge(sum_of({-0x1p-1074}));
  sum.merge(sum_of({0x1p1000}));
  sum.merge(sum_of({-0x1p1000}));
  expect_bits(sum.value(), -0x1p-1074);
}

TEST(ExactSum, InfinitiesAndNan) {
  const double inf = Limits::infinity(), nan = Limits::quiet_NaN();
  expect_bits(sum_of({1, inf, -Limits::max()}).value(), inf);
  expect_bits(sum_of({1, -inf}).value(), -inf);
  EXPECT_TRUE(std::isnan(sum_of({inf, -inf}).value()));
  EXPECT_TRUE(std::isnan(sum_of({1, nan, inf}).value()));
  ExactSum sum = sum_of({2});
  sum.merge_words(sum_of({inf, 1}).words());
  expect_bits(sum.value(), inf);
  sum.merge(sum_of({-inf}));
  EXPECT_TRUE(std::isnan(sum.value()));
  EXPECT_TRUE(std::isnan(sum_of({std::copysign(nan, -1.0)}).value()));
}

TEST(ExactSum, FlushToZeroChangesNothing) {
  const std::vector<double> terms{Limits::denorm_min(), 3 * Limits::denorm_min(), -Limits::min()};
  const double expected =
      std::bit_cast<double>((std::uint64_t{1} << 63) | ((std::uint64_t{1} << 52) - 4));
  expect_bits(sum_of(terms).value(), expected);
  Rank rank(0, 1, 1, 0);
  const RankScope scope(rank);  // flushes subnormals
  expect_bits(sum_of(terms).value(), expected);
}

// Any number of threads, each with a window of its own, over any terms.
TEST(ExactSum, PiecesAddUpToTheSameWords) {
  std::mt19937_64 random(4);
  std::vector<double> terms{
      Limits::denorm_min(), -Limits::max(), Limits::max(), Limits::max(), 0.0, -0.0};
  for (int i = 0; i < 20000; ++i) terms.push_back(any_double(random));
  for (int i = 0; i < 20000; ++i)  // of like size, as gradients are
    terms.push_back(std::ldexp(static_cast<double>(random() % 1000) - 700.0, -40));
  const auto in_pieces = [&](std::size_t threads) {
    std::array<std::int64_t, ExactPieces::kWords> words{};
    const auto add = [&](int word, std::int64_t value) {
      words[static_cast<std::size_t>(word)] += value;
    };
    for (std::size_t thread = 0; thread < threads; ++thread) {
      ExactPieces::Window window;
      for (std::size_t i = thread; i < terms.size(); i += threads) window.add(terms[i], add);
      window.close(add);
    }
    ExactSum sum = sum_of({3.5});
    sum.merge_pieces(words);
    return sum;
  };
  const auto expected = [&] {
    ExactSum sum = sum_of(terms);
    sum.add(3.5);
    return sum;
  };
  for (const std::size_t threads : {1, 7, 1000}) EXPECT_EQ(in_pieces(threads), expected());
  for (const double special : {Limits::infinity(), -Limits::infinity(), Limits::quiet_NaN()}) {
    terms[100] = special;
    EXPECT_EQ(in_pieces(3), expected()) << special;
  }
  ExactSum sum;
  try {
    sum.merge_pieces(std::vector<std::int64_t>(66));
    ADD_FAILURE() << "66 words are no sum";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "[exact_sum] pieces are 69 words, got 66");
  }
}

TEST(ExactSum, RefusesForeignWords) {
  const auto text_of = [](const std::vector<std::uint64_t>& words) -> std::string {
    try {
      ExactSum::from_words(words);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(text_of(std::vector<std::uint64_t>(34)), "[exact_sum] a sum is 35 words, got 34");
  std::vector<std::uint64_t> words(35);
  EXPECT_EQ(text_of(words), "");
  words[34] = 8;
  EXPECT_EQ(
      text_of(words),
      "[exact_sum] unknown flags 0x8 in the last of 35 words; was it sent by another version?");
}

}  // namespace
}  // namespace sg
