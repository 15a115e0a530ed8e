#include "data/synthetic.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "core/rank.h"
#include "data/normalize.h"
#include "data/permutation.h"
#include "support.h"

namespace sg::data {
namespace {

std::uint64_t fingerprint(const std::vector<std::uint8_t>& bytes) {
  return name_key({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

TEST(Synthetic, HasTheFormatOfCifar10) {
  const Splits splits = synthetic();
  EXPECT_EQ(splits.train->size(), 10'000);
  EXPECT_EQ(splits.test->size(), 2'000);
  for (const DatasetPtr& set : {splits.train, splits.test}) {
    EXPECT_NO_THROW(set->validate());
    EXPECT_EQ(set->image_size(), 3 * 32 * 32);
    EXPECT_EQ(set->classes.size(), 10u);
    std::array<std::int64_t, 10> counts{};
    for (const auto label : set->labels) ++counts[label];
    for (const auto count : counts) EXPECT_EQ(count, set->size() / 10);
  }
}

TEST(Synthetic, BytesArePinned) {  // integers alone: equal on every compiler and machine
  const Splits splits = synthetic({.train = 200, .test = 50, .seed = 0});
  EXPECT_EQ(fingerprint(splits.train->images), 8895612973469999303u);
  EXPECT_EQ(fingerprint(splits.train->labels), 10591461159569363585u);
  EXPECT_EQ(fingerprint(splits.test->images), 6681671309502868367u);
}

TEST(Synthetic, AnImageDoesNotDependOnSizesOrThreads) {
  const Splits small = synthetic({.train = 130, .test = 10, .seed = 9});
  Rank rank(0, 1, 3, 0);
  const RankScope scope(rank);
  const Splits large = synthetic({.train = 400, .test = 77, .seed = 9});
  EXPECT_TRUE(std::equal(small.train->images.begin(), small.train->images.end(),
                         large.train->images.begin()));
  EXPECT_TRUE(std::equal(small.train->labels.begin(), small.train->labels.end(),
                         large.train->labels.begin()));
  EXPECT_TRUE(
      std::equal(small.test->images.begin(), small.test->images.end(), large.test->images.begin()));
}

TEST(Synthetic, SplitsAndSeedsDiffer) {
  const Splits a = synthetic({.train = 50, .test = 50, .seed = 0});
  const Splits b = synthetic({.train = 50, .test = 50, .seed = 1});
  EXPECT_NE(a.train->images, a.test->images);
  EXPECT_NE(a.train->images, b.train->images);
  EXPECT_NE(a.train->labels, b.train->labels);
}

TEST(Synthetic, MeanImageIsTheSameForEveryClass) {
  const DatasetPtr set = synthetic({.train = 4000, .test = 1, .seed = 2}).train;
  std::array<double, 10> class_sum{};
  std::array<std::vector<double>, 10> pixel_sum;
  for (auto& sum : pixel_sum) sum.resize(3072);
  for (std::int64_t i = 0; i < set->size(); ++i) {
    const std::size_t label = set->labels[static_cast<std::size_t>(i)];
    const auto image = set->image(i);
    for (std::size_t j = 0; j < image.size(); ++j) {
      pixel_sum[label][j] += image[j];
      class_sum[label] += image[j];
    }
  }
  // A pixel's deviation is about 45, of a class mean over 400 images 2.3: none of 3072 x 10 is off
  // by much more.
  for (std::size_t c = 0; c < 10; ++c) {
    EXPECT_NEAR(class_sum[c] / (400.0 * 3072), 128, 2.5);
    for (const double sum : pixel_sum[c]) EXPECT_NEAR(sum / 400, 128, 6 * 2.3);
  }
}

TEST(Synthetic, Errors) {
  EXPECT_EQ(error_of([] { synthetic({.train = 0, .test = 5, .seed = 0}); }),
            "[synthetic] 0 training and 5 test images; both must be positive");
}

/// Softmax regression on normalised pixels with Adam (lr 1e-3, batches of 32): test accuracy after
/// `epochs`.
double linear_accuracy(const Dataset& train, const Dataset& test, int epochs) {
  constexpr std::size_t kIn = 3072, kOut = 10, kParameters = (kIn + 1) * kOut, kBatch = 32;
  const Normalizer normalize(DType::f32, 0.5, 0.5);
  std::vector<float> w(kParameters, 0.0f), m(kParameters, 0.0f), v(kParameters, 0.0f),
      g(kParameters);
  std::vector<float> x(kIn);
  const auto logits = [&](const Dataset& set, std::int64_t i) {
    normalize(set.image(i), x.data());
    std::array<float, kOut> out{};
    for (std::size_t c = 0; c < kOut; ++c) {
      float sum = w[kIn * kOut + c];
      const float* row = w.data() + c * kIn;
#pragma omp simd reduction(+ : sum)
      for (std::size_t j = 0; j < kIn; ++j) sum += row[j] * x[j];
      out[c] = sum;
    }
    return out;
  };
  std::vector<std::int32_t> order(static_cast<std::size_t>(train.size()));
  std::iota(order.begin(), order.end(), 0);
  float power1 = 1, power2 = 1;
  for (int epoch = 0; epoch < epochs; ++epoch) {
    shuffle(std::span<std::int32_t>(order), static_cast<std::uint64_t>(epoch));
    for (std::size_t k = 0; k + kBatch <= order.size(); k += kBatch) {
      std::fill(g.begin(), g.end(), 0.0f);
      for (std::size_t b = 0; b < kBatch; ++b) {
        const std::int32_t i = order[k + b];
        auto p = logits(train, i);
        const float top = *std::max_element(p.begin(), p.end());
        float sum = 0;
        for (float& value : p) sum += value = std::exp(value - top);
        for (std::size_t c = 0; c < kOut; ++c) {
          const float hit = train.labels[static_cast<std::size_t>(i)] == c ? 1.0f : 0.0f;
          const float d = (p[c] / sum - hit) / kBatch;
          float* row = g.data() + c * kIn;
#pragma omp simd
          for (std::size_t j = 0; j < kIn; ++j) row[j] += d * x[j];
          g[kIn * kOut + c] += d;
        }
      }
      power1 *= 0.9f;
      power2 *= 0.999f;
      const float rate = 1e-3f / (1 - power1), correction = 1 / (1 - power2);
#pragma omp simd
      for (std::size_t j = 0; j < kParameters; ++j) {
        m[j] = 0.9f * m[j] + 0.1f * g[j];
        v[j] = 0.999f * v[j] + 0.001f * g[j] * g[j];
        w[j] -= rate * m[j] / (std::sqrt(v[j] * correction) + 1e-8f);
      }
    }
  }
  std::int64_t right = 0;
  for (std::int64_t i = 0; i < test.size(); ++i) {
    const auto out = logits(test, i);
    right += std::max_element(out.begin(), out.end()) - out.begin() ==
             test.labels[static_cast<std::size_t>(i)];
  }
  return static_cast<double>(right) / static_cast<double>(test.size());
}

// Slow under sanitizers alone, which have nothing to find here.
TEST(SlowSynthetic, LinearClassifierStaysFarBelowSixtyPercent) {
  const Splits splits = synthetic();
  const double accuracy = linear_accuracy(*splits.train, *splits.test, 2);
  RecordProperty("accuracy", std::to_string(accuracy));
  EXPECT_LT(accuracy, 0.45);
  EXPECT_GT(accuracy, 0.05);

  // The same classifier does learn what is linear: one patch of the image brightened for each
  // class.
  Splits easy = synthetic({.train = 2000, .test = 500, .seed = 1});
  for (const DatasetPtr& set : {easy.train, easy.test}) {
    Dataset& images = const_cast<Dataset&>(*set);
    for (std::int64_t i = 0; i < set->size(); ++i) {
      const std::int64_t label = set->labels[static_cast<std::size_t>(i)];
      std::fill_n(images.images.begin() + i * 3072 + label * 96, 96, std::uint8_t{255});
    }
  }
  EXPECT_GT(linear_accuracy(*easy.train, *easy.test, 2), 0.9);
}

}  // namespace
}  // namespace sg::data
