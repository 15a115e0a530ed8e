// Elementwise tensor functions against plain loops, over layouts, dtypes and threads.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/ops.h"
#include "tests/support/testing.h"

namespace sg {
namespace {

using test::error_of;
using test::expect_close;
using test::expect_same_bits;
using test::indices;
using test::kNan;
using test::layouts;
using Values = std::vector<double>;

TEST(Elementwise, EveryPairOfLayoutsAndBroadcasts) {
  const std::pair<Shape, Shape> shapes[] = {{{3, 5}, {3, 5}},
                                            {{3, 5}, {5}},
                                            {{3, 1}, {1, 5}},
                                            {{}, {4}},
                                            {{2, 3, 4, 5}, {3, 1, 1}},
                                            {{2, 3, 4, 5}, {2, 3, 4, 5}},
                                            {{7, 10}, {10}},
                                            {{300, 3}, {300, 1}},
                                            {{2, 1, 200}, {3, 1}},
                                            {{2, 3, 150}, {150}},
                                            {{0, 3}, {3}},
                                            {{3, 2, 2, 2, 3}, {2, 1, 3}}};
  for (const auto& [sa, sb] : shapes) {
    const Shape shape = broadcast_shapes("test", sa, sb);
    const Tensor a = test::random(sa, DType::f64, 1), b = test::random(sb, DType::f64, 2);
    Values expected;
    for (const auto& index : indices(shape))
      expected.push_back(test::at(a, index) - test::at(b, index));
    for (const Tensor& la : layouts(a))
      for (const Tensor& lb : layouts(b)) {
        SCOPED_TRACE(fmt::format("{} {} with {} {}", sa, la.strides(), sb, lb.strides()));
        EXPECT_EQ(ops::sub(la, lb).to_doubles(), expected);
        for (const DType dtype : {DType::bf16, DType::f16}) {
          const Tensor na = la.to(dtype), nb = lb.to(dtype);
          const Tensor y = ops::sub(na, nb);
          EXPECT_EQ(y.dtype(), dtype);
          // One rounding of the exact float difference.
          expect_same_bits(y.contiguous(),
                           ops::sub(na.to(DType::f32), nb.to(DType::f32)).to(dtype).contiguous());
        }
      }
  }
}

TEST(Elementwise, ResultsKeepTheMemoryOrderOfDenseArguments) {
  const Tensor x = test::random({2, 3, 4, 5}, DType::f32).channels_last();
  const Tensor bias = test::random({3, 1, 1}, DType::f32);
  EXPECT_TRUE(ops::relu(x).is_channels_last());
  EXPECT_TRUE(ops::add(x, bias).is_channels_last());
  EXPECT_TRUE(ops::add(bias, x).is_channels_last());
  EXPECT_TRUE(ops::gt(x, bias).is_channels_last());
  EXPECT_EQ(ops::relu(x.permute({3, 1, 0, 2})).strides(), x.permute({3, 1, 0, 2}).strides());
  EXPECT_TRUE(ops::relu(x.slice(3, 0, 2)).is_contiguous());
  EXPECT_TRUE(ops::add(x.contiguous(), x.contiguous()).is_contiguous());
  const Tensor meta = Tensor::empty_strided({2, 3, 4, 5}, x.strides(), DType::f32, kMeta);
  EXPECT_TRUE(ops::mul(meta, meta).is_channels_last());
}

TEST(Elementwise, Integers) {
  for (const DType dtype : {DType::i64, DType::i32, DType::u8}) {
    const Tensor a = Tensor::from(std::vector<double>{1, 2, 3, 100}, {4}).to(dtype);
    const Tensor b = Tensor::from(std::vector<double>{3, 2, 1, 2}, {4}).to(dtype);
    EXPECT_EQ(ops::add(a, b).dtype(), dtype);
    EXPECT_EQ(ops::add(a, b).to_doubles(), (Values{4, 4, 4, 102}));
    EXPECT_EQ(ops::mul(a, b).to_doubles(), (Values{3, 4, 3, 200}));
    EXPECT_EQ(ops::maximum(a, b).to_doubles(), (Values{3, 2, 3, 100}));
    EXPECT_EQ(ops::minimum(a, b).to_doubles(), (Values{1, 2, 1, 2}));
    EXPECT_EQ(ops::add(a, -1.0).to_doubles(), (Values{0, 1, 2, 99}));
    EXPECT_EQ(ops::lt(a, b).dtype(), DType::u8);
    EXPECT_EQ(ops::lt(a, b).to_doubles(), (Values{1, 0, 0, 0}));
    EXPECT_EQ(ops::le(a, b).to_doubles(), (Values{1, 1, 0, 0}));
    EXPECT_EQ(ops::gt(a, b).to_doubles(), (Values{0, 0, 1, 1}));
    EXPECT_EQ(ops::ge(a, b).to_doubles(), (Values{0, 1, 1, 1}));
    EXPECT_EQ(ops::eq(a, b).to_doubles(), (Values{0, 1, 0, 0}));
    EXPECT_EQ(ops::ne(a, b).to_doubles(), (Values{1, 0, 1, 1}));
    EXPECT_EQ(ops::unary<ew::Clamp>(a, 2, 50).to_doubles(), (Values{2, 2, 3, 50}));
  }
  const Tensor big = Tensor::from(std::vector<std::int64_t>{(1ll << 60) + 1}, {1});
  EXPECT_EQ(ops::add(big, big).to_vector<std::int64_t>()[0], (1ll << 61) + 2)
      << "no detour through floating point";
  EXPECT_EQ(error_of([&] { ops::sqrt(big); }),
            "[sqrt] is not defined for i64; cast to a floating dtype first");
  EXPECT_EQ(error_of([&] { ops::add(big, Tensor::zeros({1})); }),
            "[add] mixed dtypes: i64 [1] and f32 [1]; cast one of them");
}

TEST(Elementwise, NanAndInfinities) {
  const double inf = std::numeric_limits<double>::infinity();
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
    const Tensor x = Tensor::from(std::vector<double>{kNan, inf, -inf, 1}, {4}).to(dtype);
    const Tensor one = Tensor::full({}, 1, dtype);
    const auto same = [](const Tensor& found, const Values& expected) {
      expect_close(found, Tensor::from(expected, {4}), 0, 0);
    };
    same(ops::relu(x), {kNan, inf, 0, 1});
    same(ops::maximum(x, one), {kNan, inf, 1, 1});
    same(ops::maximum(one, x), {kNan, inf, 1, 1});
    same(ops::minimum(x, one), {kNan, 1, -inf, 1});
    same(ops::minimum(one, x), {kNan, 1, -inf, 1});
    same(ops::unary<ew::Clamp>(x, -2, 2), {kNan, 2, -2, 1});
    same(ops::eq(x, x), {0, 1, 1, 1});
    same(ops::ne(x, x), {1, 0, 0, 0});
    same(ops::amax(x.reshape({4, 1}), {1}), {kNan, inf, -inf, 1});
    EXPECT_TRUE(std::isnan(ops::amax(x).item()));
    EXPECT_TRUE(std::isnan(ops::amin(x).item()));
    EXPECT_TRUE(std::isnan(ops::sum(x).item()));
  }
}

TEST(Elementwise, InPlace) {
  for (const Tensor& x : layouts(test::random({2, 3, 4, 5}, DType::f32, 1))) {
    const Tensor bias = test::random({3, 1, 1}, DType::f32, 2), expected = ops::add(x, bias);
    const std::uint64_t version = x.storage()->version();
    ops::add_(x, bias);
    EXPECT_EQ(x.storage()->version(), version + 1);
    EXPECT_EQ(x.to_doubles(), expected.to_doubles());
    ops::add_(x, x);
    ops::mul_(x, 0.5);
    EXPECT_EQ(x.to_doubles(), expected.to_doubles());
    EXPECT_EQ(x.storage()->version(), version + 3);
  }
  // Only the view's elements change.
  const Tensor whole = Tensor::zeros({4, 4});
  ops::add_(whole.slice(0, 1, 2).slice(1, 0, 2), Tensor::full({}, 3));
  EXPECT_EQ(whole.to_doubles(), (Values{0, 0, 0, 0, 3, 3, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(error_of([&] {
              ops::add_(whole, Tensor::zeros({2, 4, 4}));
            }),
            "[add_] [2, 4, 4] does not broadcast to [4, 4], which is changed in place");
}

TEST(Elementwise, Where) {
  const Tensor condition = Tensor::from(std::vector<std::uint8_t>{1, 0, 7}, {3});
  const Tensor a = test::random({2, 3}, DType::f32, 1), b = test::random({}, DType::f32, 2);
  const Values x = a.to_doubles();
  const double y = b.item();
  for (const Tensor& la : layouts(a))
    EXPECT_EQ(ops::where(condition, la, b).to_doubles(), (Values{x[0], y, x[2], x[3], y, x[5]}));
}

// Long enough for every thread to have work, with blocks that end at odd places.
TEST(Elementwise, ThreadsChangeNoBit) {
  const Tensor a = test::random({257, 1031}, DType::f32, 1),
               row = test::random({1031}, DType::f32, 2);
  const Tensor column = test::random({257, 1}, DType::f32, 3),
               narrow = test::random({70001, 3}, DType::f32, 4);
  std::vector<Tensor> first;
  for (const int threads : {1, 2, 3}) {
    test::with_threads(threads, [&] {
      const std::vector<Tensor> results{ops::unary<ew::Gelu>(a),
                                        ops::add(a, row),
                                        ops::mul(a, column),
                                        ops::mul(test::reversed_order(a), column),
                                        ops::add(a.to(DType::bf16), row.to(DType::bf16)),
                                        ops::mul(narrow, narrow.slice(0, 0, 1)),
                                        ops::sum(a),
                                        ops::sum(a, {0}),
                                        ops::sum(a, {1}),
                                        ops::mean(narrow, {0}),
                                        ops::var(narrow, {0}),
                                        ops::amax(a, {0}),
                                        ops::softmax(a, 1),
                                        ops::log_softmax(narrow, 1),
                                        ops::dropout(a, 0.3, {1, 2, {}})};
      if (first.empty()) first = results;
      for (std::size_t i = 0; i < results.size(); ++i) {
        SCOPED_TRACE(i);
        expect_same_bits(results[i], first[i]);
      }
    });
  }
}

}  // namespace
}  // namespace sg
