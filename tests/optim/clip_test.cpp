#include "optim/clip.h"

#include <cmath>
#include <fstream>
#include <limits>

#include <nlohmann/json.hpp>

#include "core/rank.h"
#include "tests/optim/support.h"

namespace sg::optim {
namespace {

template <class T>
std::vector<T> random_values(std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<T> values(n);
  for (T& value : values)
    value = static_cast<T>(std::ldexp(normal(random), static_cast<int>(random() % 40) - 20));
  return values;
}

template <class T>
ExactSum squares(const std::vector<T>& grads, double divisor = 1) {
  ExactSum sum;
  add_squares(std::span<const T>(grads), divisor, sum);
  return sum;
}

template <class T>
class Squares : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(Squares, Types);

// The definition, written out: eight lanes a block, a tree, and blocks added without rounding.
TYPED_TEST(Squares, AsDefined) {
  using T = TypeParam;
  for (const std::size_t n : {0, 1, 7, 8, 63, 64, 65, 640, 1001, 20000})
    for (const double divisor : {1.0, 8.0, 3.0}) {
      const auto grads = random_values<T>(n, 1);
      ExactSum expected;
      for (std::size_t block = 0; block < n; block += 64) {
        double lane[8] = {};
        for (std::size_t i = block; i < std::min(n, block + 64); ++i) {
          const double g = grads[i] / static_cast<T>(divisor);
          lane[i % 8] += g * g;
        }
        expected.add(((lane[0] + lane[4]) + (lane[2] + lane[6])) +
                     ((lane[1] + lane[5]) + (lane[3] + lane[7])));
      }
      EXPECT_EQ(squares(grads, divisor), expected) << n << " / " << divisor;
    }
}

TYPED_TEST(Squares, AnySplitAtBlocksAndAnyThreadsGiveTheSameWords) {
  using T = TypeParam;
  const auto grads = random_values<T>(100000, 2);
  const ExactSum expected = squares(grads, 3);
  std::mt19937 random(3);
  for (int trial = 0; trial < 12; ++trial) {
    Rank rank(0, 1, 1 + trial % 5, 0);
    const RankScope scope(rank);
    std::vector<ExactSum> ranks(1 + random() % 8);
    for (std::size_t begin = 0, end; begin < grads.size(); begin = end) {
      end = std::min(grads.size(), begin + 64 * (1 + random() % 1000));
      add_squares(std::span<const T>(grads).subspan(begin, end - begin), 3,
                  ranks[random() % ranks.size()]);
    }
    ExactSum total;
    for (const ExactSum& part : ranks) total.merge_words(part.words());
    EXPECT_EQ(total, expected);
  }
  std::vector<T> padded = grads;
  padded.resize(grads.size() + 777);
  EXPECT_EQ(squares(padded, 3), expected);
}

TYPED_TEST(Squares, InfinityNanAndRange) {
  using T = TypeParam;
  using Limits = std::numeric_limits<T>;
  auto grads = random_values<T>(200, 4);
  grads[130] = -Limits::infinity();
  EXPECT_EQ(squares(grads).value(), Limits::infinity());
  grads[7] = Limits::quiet_NaN();
  EXPECT_TRUE(std::isnan(squares(grads).value()));
  // The largest and smallest floats have squares in double; doubles may leave the range, as
  // documented.
  const std::vector<T> large(100, Limits::max()), small(100, Limits::min());
  if (sizeof(T) == 4) {
    EXPECT_DOUBLE_EQ(std::sqrt(squares(large).value()), 10 * static_cast<double>(Limits::max()));
    EXPECT_DOUBLE_EQ(std::sqrt(squares(small).value()), 10 * static_cast<double>(Limits::min()));
  } else {
    EXPECT_EQ(squares(large).value(), std::numeric_limits<double>::infinity());
    EXPECT_EQ(squares(small).value(), 0.0);
  }
}

TEST(Clip, Coefficient) {
  const double inf = std::numeric_limits<double>::infinity();
  EXPECT_EQ(clip_coefficient(0.5, 1), 1);
  EXPECT_EQ(clip_coefficient(0, 1), 1);
  EXPECT_EQ(clip_coefficient(4, 1), 1 / (4 + 1e-6));
  EXPECT_EQ(clip_coefficient(1, 1), 1 / (1 + 1e-6));
  EXPECT_EQ(clip_coefficient(4, 0), 0);
  EXPECT_EQ(clip_coefficient(inf, 1), 0);
  EXPECT_EQ(clip_coefficient(4, inf), 1);
  EXPECT_TRUE(std::isnan(clip_coefficient(std::nan(""), 1)));
  EXPECT_EQ(error_of([] { clip_coefficient(1, -3); }), "[clip] max_norm must be >= 0, got -3");
  ExactSum sum;
  EXPECT_EQ(error_of([&] { add_squares(std::span<const float>(), 0, sum); }),
            "[clip] divisor must be > 0, got 0");
}

template <class T>
void follow_clipped(const nlohmann::json& run) {
  const double tolerance = 8 * std::numeric_limits<T>::epsilon();
  ExactSum sum;
  const auto grads = run["grads"].get<std::vector<std::vector<T>>>();
  for (const auto& grad : grads) add_squares(std::span<const T>(grad), 1, sum);
  const double norm = std::sqrt(sum.value());
  EXPECT_NEAR(norm, run["norm"].get<double>(), tolerance * norm);
  const double coefficient = clip_coefficient(norm, run["max_norm"]);
  // As the updates apply it: plain SGD with lr 1 from zero shows minus the gradient that is used.
  const OptimizerPtr optimizer = sgd({.lr = 1});
  const auto clipped = run["clipped"].get<std::vector<std::vector<T>>>();
  ASSERT_EQ(clipped.size(), grads.size());
  for (std::size_t i = 0; i < grads.size(); ++i) {
    std::vector<T> param(grads[i].size());
    optimizer->update(param, std::span<const T>(grads[i]), {}, optimizer->defaults(),
                      {.clip_scale = coefficient});
    for (std::size_t j = 0; j < param.size(); ++j)
      EXPECT_NEAR(-param[j], clipped[i][j], tolerance * std::abs(clipped[i][j]));
  }
}

TEST(Clip, FollowsTorch) {
  std::ifstream file(SG_TEST_DATA "/optim.json");
  ASSERT_TRUE(file) << SG_TEST_DATA "/optim.json is missing; tests/golden/optim.py writes it";
  const nlohmann::json runs = nlohmann::json::parse(file)["clipping"];
  ASSERT_GE(runs.size(), 8u);
  for (const auto& run : runs)
    run["dtype"] == "f32" ? follow_clipped<float>(run) : follow_clipped<double>(run);
}

}  // namespace
}  // namespace sg::optim
