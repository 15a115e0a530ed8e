// Initial values against the distributions that they are said to have, and cut in every way that
// ranks may cut them.
#include "nn/init.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "nn/batch_norm.h"
#include "nn/conv2d.h"
#include "nn/embedding.h"
#include "nn/layer_norm.h"
#include "nn/linear.h"
#include "tests/nn/support.h"

namespace sg::nn {
namespace {

std::vector<double> values_of(const Parameter& parameter, std::uint64_t seed = 3) {
  std::vector<double> values(static_cast<std::size_t>(parameter.numel()));
  parameter.read(seed, 0, parameter.numel(), values.data(), DType::f64);
  return values;
}

std::vector<double> values_of(const Init& init, const Shape& shape, const std::string& name = "w",
                              std::uint64_t seed = 3) {
  return values_of(Parameter(name, shape, init), seed);
}

double uniform_cdf(double x, double low, double high) {
  return std::clamp((x - low) / (high - low), 0.0, 1.0);
}
double normal_cdf(double x, double std) { return 0.5 * std::erfc(-x / std / std::sqrt(2.0)); }

// Kolmogorov and Smirnov's statistic against `cdf`; beyond 1.95 / sqrt(n) with probability 0.001.
void expect_distribution(std::vector<double> values, const std::function<double(double)>& cdf) {
  std::sort(values.begin(), values.end());
  const auto n = static_cast<double>(values.size());
  double distance = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double p = cdf(values[i]);
    distance =
        std::max({distance, p - static_cast<double>(i) / n, static_cast<double>(i + 1) / n - p});
  }
  EXPECT_LT(distance, 1.95 / std::sqrt(n));
}

void expect_moments(const std::vector<double>& values, double mean, double std) {
  double sum = 0, squares = 0;
  for (const double v : values) sum += v;
  const auto n = static_cast<double>(values.size());
  for (const double v : values) squares += (v - sum / n) * (v - sum / n);
  EXPECT_NEAR(sum / n, mean, 4 * std / std::sqrt(n));
  EXPECT_NEAR(std::sqrt(squares / n), std, 4 * std / std::sqrt(n));
}

TEST(Init, UniformHasItsDistribution) {
  const auto values = values_of(uniform(-2, 5), {200, 100});
  expect_distribution(values, [](double x) { return uniform_cdf(x, -2, 5); });
  expect_moments(values, 1.5, 7 / std::sqrt(12.0));
  EXPECT_GE(*std::min_element(values.begin(), values.end()), -2);
  EXPECT_LE(*std::max_element(values.begin(), values.end()), 5);
}

TEST(Init, NormalHasItsDistribution) {
  const auto values = values_of(normal(0, 0.02), {20000});
  expect_distribution(values, [](double x) { return normal_cdf(x, 0.02); });
  expect_moments(values, 0, 0.02);
  expect_moments(values_of(normal(7, 3), {20000}), 7, 3);
}

TEST(Init, TruncatedNormalHasItsDistribution) {
  const auto values = values_of(truncated_normal(0, 1, -1, 2), {20000});
  const double from = normal_cdf(-1, 1), to = normal_cdf(2, 1);
  expect_distribution(values, [&](double x) { return (normal_cdf(x, 1) - from) / (to - from); });
  EXPECT_GE(*std::min_element(values.begin(), values.end()), -1);
  EXPECT_LE(*std::max_element(values.begin(), values.end()), 2);
}

TEST(Init, KaimingAndXavierHaveTheirScale) {
  const Shape shape{60, 20, 3, 5};  // fan_in 300, fan_out 900
  const double k = std::sqrt(6.0 / (1 + 0.04) / 300);
  expect_distribution(values_of(kaiming_uniform(0.2), shape),
                      [&](double x) { return uniform_cdf(x, -k, k); });
  const double x = 2 * std::sqrt(6.0 / 1200);
  expect_distribution(values_of(xavier_uniform(2), shape),
                      [&](double v) { return uniform_cdf(v, -x, x); });
  expect_moments(values_of(kaiming_normal(0.2, FanMode::out), shape), 0,
                 std::sqrt(2.0 / 1.04 / 900));
  expect_moments(values_of(xavier_normal(2), shape), 0, 2 * std::sqrt(2.0 / 1200));
}

TEST(Init, FansAreThoseOfPyTorch) {
  EXPECT_EQ(fans_of({60, 20, 3, 5}).in, 300);
  EXPECT_EQ(fans_of({60, 20, 3, 5}).out, 900);
  EXPECT_EQ(
      error_of([] { Parameter("bias", {4}, kaiming_uniform()); }),
      "[init] a weight of shape [4] has no fan; it needs at least 2 dimensions, [out, in, ...]");
}

// PyTorch's reset_parameters: kaiming_uniform_(a = sqrt(5)) is U(-1/sqrt(fan_in), 1/sqrt(fan_in)),
// as is the bias.
TEST(Init, DefaultsAreThoseOfPyTorch) {
  const auto expect_uniform = [](const Parameter& p, double fan_in) {
    const double b = 1 / std::sqrt(fan_in);
    expect_distribution(values_of(p), [b](double x) { return uniform_cdf(x, -b, b); });
  };
  const Linear linear(120, 700);
  expect_uniform(linear.weight, 120);
  expect_uniform(linear.bias, 120);
  const Conv2d conv(6, 600, {3, 5}, {.groups = 2});
  expect_uniform(conv.weight, 45);
  expect_uniform(conv.bias, 45);
  expect_distribution(values_of(Embedding(500, 40).weight),
                      [](double x) { return normal_cdf(x, 1); });
  const auto rows = values_of(Embedding(5, 40, 2).weight);
  for (int i = 0; i < 200; ++i) EXPECT_EQ(rows[i] == 0, i / 40 == 2) << i;
  EXPECT_EQ(values_of(kaiming_uniform(std::sqrt(5.0)), {30, 50}),
            values_of(uniform(-1 / std::sqrt(50.0), 1 / std::sqrt(50.0)), {30, 50}));
}

TEST(Init, NormsBeginAsPlainNormalisation) {
  const auto all = [](double value, std::size_t n) { return std::vector<double>(n, value); };
  const LayerNorm layer(Shape{3, 5});
  EXPECT_EQ(values_of(layer.weight), all(1, 15));
  EXPECT_EQ(values_of(layer.bias), all(0, 15));
  const BatchNorm2d batch(7);
  EXPECT_EQ(values_of(batch.weight), all(1, 7));
  EXPECT_EQ(values_of(batch.bias), all(0, 7));
  test::expect_same_bits(batch.running_mean, Tensor::full({7}, 0));
  test::expect_same_bits(batch.running_var, Tensor::full({7}, 1));
}

TEST(Init, ValuesDependOnSeedNameAndElementAlone) {
  const Shape shape{4, 50};
  const auto values = values_of(normal(), shape, "fc1.weight", 3);
  EXPECT_EQ(values_of(normal(), shape, "fc1.weight", 3), values);
  EXPECT_EQ(values_of(normal(), {200}, "fc1.weight", 3), values) << "element, not shape";
  const auto count_equal = [&](const std::vector<double>& other) {
    int equal = 0;
    for (std::size_t i = 0; i < values.size(); ++i) equal += values[i] == other[i];
    return equal;
  };
  EXPECT_EQ(count_equal(values_of(normal(), shape, "fc1.weight", 4)), 0);
  EXPECT_EQ(count_equal(values_of(normal(), shape, "fc2.weight", 3)), 0);
  std::vector<double> sorted = values;
  std::sort(sorted.begin(), sorted.end());
  EXPECT_EQ(std::adjacent_find(sorted.begin(), sorted.end()), sorted.end()) << "elements repeat";
}

TEST(Init, EveryCutGivesTheSameValues) {
  for (const Init& init :
       {uniform(-1, 1), normal(), truncated_normal(), kaiming_normal(), Init(ones)}) {
    const Parameter p("w", {37, 41}, init);
    const auto whole = values_of(p);
    for (const std::int64_t step : {1, 2, 3, 64, 511, 512, 513, 1000}) {
      std::vector<double> parts(whole.size());
      for (std::int64_t i = 0; i < p.numel(); i += step)
        p.read(3, i, std::min(step, p.numel() - i), parts.data() + i, DType::f64);
      EXPECT_EQ(parts, whole) << step;
    }
  }
}

TEST(Init, ThreadsDoNotChangeValues) {
  const Parameter p("w", {70000}, normal());
  Rank one(0, 1, 1, 0), four(0, 1, 4, 0);
  std::vector<double> a, b;
  {
    const RankScope scope(one);
    a = values_of(p);
  }
  {
    const RankScope scope(four);
    b = values_of(p);
  }
  EXPECT_EQ(a, b);
}

TEST(Init, NarrowValuesAreTheRoundedWideOnes) {
  const Parameter p("w", {1000}, normal());
  const auto wide = values_of(p);
  std::vector<float> f(1000);
  std::vector<bf16> b(1000);
  p.read(3, 0, 1000, f.data(), DType::f32);
  p.read(3, 0, 1000, b.data(), DType::bf16);
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(f[i], static_cast<float>(wide[i]));
    EXPECT_EQ(b[i].bits, bf16(static_cast<float>(wide[i])).bits);
  }
}

TEST(Init, ErrorsSayWhatIsWrong) {
  EXPECT_EQ(error_of([] { uniform(2, 1); }), "[uniform] the range [2, 1] is empty");
  EXPECT_EQ(error_of([] { normal(0, -1); }), "[normal] std must be >= 0, got -1");
  EXPECT_EQ(error_of([] { truncated_normal(0, 1, 3, 2); }),
            "[truncated_normal] std must be > 0 and the range not empty, got 1 and [3, 2]");
}

TEST(Init, AnErrorFromAThreadOfThePoolArrives) {
  const Parameter p("w", {100000},
                    [](const FillContext&, std::int64_t begin, std::span<double> out) {
                      if (begin + std::ssize(out) == 100000) fail("[mine] no such value");
                    });
  EXPECT_EQ(error_of([&] { p.value(); }), "[mine] no such value");
  EXPECT_TRUE(p.declared());
}

}  // namespace
}  // namespace sg::nn
