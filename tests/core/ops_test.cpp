// The other tensor functions. Gradients and PyTorch's values are tested in tests/autograd.
#include "core/ops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "tests/support/testing.h"

namespace sg {
namespace {

using test::error_of;
using test::expect_close;
using test::expect_same_bits;
using test::indices;
using test::layouts;
using Values = std::vector<double>;

TEST(Dropout, KeepsTheRightShareAndScale) {
  const Tensor x = Tensor::full({100, 1000}, 1);
  const Tensor y = ops::dropout(x, 0.3, {5, 6, {}});
  std::int64_t dropped = 0;
  for (const double v : y.to_doubles()) {
    if (v == 0)
      ++dropped;
    else
      ASSERT_FLOAT_EQ(static_cast<float>(v), 1 / 0.7f);
  }
  EXPECT_NEAR(static_cast<double>(dropped) / 1e5, 0.3, 0.0075);  // five standard deviations
  expect_same_bits(ops::dropout(x, 0, {5, 6, {}}), x);
  EXPECT_EQ(ops::sum(ops::dropout(x, 1, {5, 6, {}})).item(), 0);
}

// The same global batch on any number of ranks: each draws its own samples' masks.
TEST(Dropout, AMaskIsAFunctionOfThePositionInTheGlobalBatch) {
  const Tensor x = Tensor::full({8, 5, 7}, 1);
  const Tensor whole = ops::dropout(x, 0.5, {1, 2, {3, 40}});
  for (const std::int64_t ranks : {2, 4, 8}) {
    const std::int64_t n = 8 / ranks;
    for (std::int64_t r = 0; r < ranks; ++r)
      expect_same_bits(ops::dropout(x.slice(0, r * n, n), 0.5, {1, 2, {3, 40 + r * n}}),
                       whole.slice(0, r * n, n).contiguous());
  }
  const auto differs = [&](const ops::DropoutKey& key) {
    return ops::sum(ops::ne(ops::dropout(x, 0.5, key), whole)).item() > 50;
  };
  EXPECT_TRUE(differs({2, 2, {3, 40}})) << "seed";
  EXPECT_TRUE(differs({1, 3, {3, 40}})) << "site";
  EXPECT_TRUE(differs({1, 2, {4, 40}})) << "step";
  EXPECT_TRUE(differs({1, 2, {3, 41}})) << "sample";
}

TEST(Dropout, LayoutAndDtypeDoNotMoveTheMask) {
  const Tensor x = Tensor::full({2, 3, 4, 5}, 1);
  const ops::DropoutKey key{1, 2, {}};
  const Values mask = ops::dropout(x, 0.5, key).to_doubles();
  for (const Tensor& l : layouts(x)) EXPECT_EQ(ops::dropout(l, 0.5, key).to_doubles(), mask);
  for (const DType dtype : {DType::f64, DType::bf16, DType::f16})
    EXPECT_EQ(ops::dropout(x.to(dtype), 0.5, key).to_doubles(), mask);
}

TEST(Embedding, GradientsAddUpInOrderForEveryThreadCount) {
  const std::int64_t rows = 50, dim = 33, count = 4000;
  std::vector<std::int64_t> index(count);
  for (std::size_t i = 0; i < index.size(); ++i) index[i] = static_cast<std::int64_t>(i * i % 47);
  const Tensor indices = Tensor::from(index, {40, 100}),
               grad = test::random({40, 100, dim}, DType::f32, 1);
  Tensor first;
  for (const int threads : {1, 2, 3}) {
    test::with_threads(threads, [&] {
      const Tensor gw = Tensor::full({rows, dim}, 9);
      ops::embedding_grad(indices, grad, 4, gw);
      if (!first.defined()) first = gw;
      expect_same_bits(gw, first);
    });
  }
  std::vector<float> expected(static_cast<std::size_t>(rows * dim));
  const std::vector<float> values = grad.to_vector<float>();
  for (std::size_t i = 0; i < index.size(); ++i)
    for (std::size_t j = 0; j < dim; ++j)
      if (index[i] != 4)
        expected[static_cast<std::size_t>(index[i] * dim) + j] += values[i * dim + j];
  expect_same_bits(first, Tensor::from(expected, {rows, dim}));
}

TEST(Shapes, CatAndPadKeepChannelsLast) {
  const Tensor x = test::random({2, 3, 4, 5}, DType::f32).channels_last();
  EXPECT_TRUE(ops::cat(std::vector<Tensor>{x, x}, 1).is_channels_last());
  EXPECT_TRUE(ops::pad(x, {1, 1, 1, 1}).is_channels_last());
  EXPECT_EQ(ops::pad(x, {1, 1, 1, 1}).to_doubles(),
            ops::pad(x.contiguous(), {1, 1, 1, 1}).to_doubles());
  EXPECT_EQ(error_of([&] {
              ops::cat(std::vector<Tensor>{x, x.to(DType::f64)}, 0);
            }),
            "[cat] mixed dtypes: f32 [2, 3, 4, 5] and f64 [2, 3, 4, 5]; cast one of them");
}

}  // namespace
}  // namespace sg
