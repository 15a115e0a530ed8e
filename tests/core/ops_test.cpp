// Tensor functions against plain loops, over layouts, dtypes and threads. Gradients and PyTorch's values are tested in
// tests/autograd.
#include "core/ops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "tests/support/testing.h"

namespace sg {
namespace {

using test::error_of;
using test::expect_close;
using test::expect_same_bits;
using Values = std::vector<double>;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// The value at a multi-dimensional index that broadcasts.
double at(const Tensor& x, const std::vector<std::int64_t>& index) {
  const int skip = static_cast<int>(index.size()) - x.dim_count();
  Tensor view = x;
  for (int d = 0; d < x.dim_count(); ++d)
    view = view.slice(d, x.shape()[d] == 1 ? 0 : index[static_cast<std::size_t>(d + skip)], 1);
  return view.item();
}

// All indices of a shape in row-major order.
std::vector<std::vector<std::int64_t>> indices(const Shape& shape) {
  std::vector<std::vector<std::int64_t>> all;
  for (std::int64_t i = 0; i < numel(shape); ++i) {
    std::vector<std::int64_t> index(static_cast<std::size_t>(shape.size()));
    std::int64_t rest = i;
    for (int d = shape.size() - 1; d >= 0; --d) {
      index[static_cast<std::size_t>(d)] = rest % shape[d];
      rest /= shape[d];
    }
    all.push_back(index);
  }
  return all;
}

// The same values in several memory orders.
std::vector<Tensor> layouts(const Tensor& x) {
  std::vector<Tensor> all{x, test::reversed_order(x), test::every_second(x)};
  if (x.dim_count() == 4) all.push_back(x.channels_last());
  return all;
}

// ---- elementwise

TEST(Elementwise, EveryPairOfLayoutsAndBroadcasts) {
  const std::pair<Shape, Shape> shapes[] = {
      {{3, 5}, {3, 5}},          {{3, 5}, {5}},      {{3, 1}, {1, 5}}, {{}, {4}},           {{2, 3, 4, 5}, {3, 1, 1}},
      {{2, 3, 4, 5}, {2, 3, 4, 5}}, {{7, 10}, {10}}, {{300, 3}, {300, 1}}, {{2, 1, 200}, {3, 1}}, {{2, 3, 150}, {150}},
      {{0, 3}, {3}},             {{3, 2, 2, 2, 3}, {2, 1, 3}}};
  for (const auto& [sa, sb] : shapes) {
    const Shape shape = broadcast_shapes("test", sa, sb);
    const Tensor a = test::random(sa, DType::f64, 1), b = test::random(sb, DType::f64, 2);
    Values expected;
    for (const auto& index : indices(shape)) expected.push_back(at(a, index) - at(b, index));
    for (const Tensor& la : layouts(a))
      for (const Tensor& lb : layouts(b)) {
        SCOPED_TRACE(fmt::format("{} {} with {} {}", sa, la.strides(), sb, lb.strides()));
        EXPECT_EQ(ops::sub(la, lb).to_doubles(), expected);
        for (const DType dtype : {DType::bf16, DType::f16}) {
          const Tensor na = la.to(dtype), nb = lb.to(dtype);
          const Tensor y = ops::sub(na, nb);
          EXPECT_EQ(y.dtype(), dtype);
          // One rounding of the exact float difference.
          expect_same_bits(y.contiguous(), ops::sub(na.to(DType::f32), nb.to(DType::f32)).to(dtype).contiguous());
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
  EXPECT_EQ(ops::add(big, big).to_vector<std::int64_t>()[0], (1ll << 61) + 2) << "no detour through floating point";
  EXPECT_EQ(error_of([&] { ops::sqrt(big); }), "[sqrt] is not defined for i64; cast to a floating dtype first");
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
  EXPECT_EQ(error_of([&] { ops::add_(whole, Tensor::zeros({2, 4, 4})); }),
            "[add_] [2, 4, 4] does not broadcast to [4, 4], which is changed in place");
}

TEST(Elementwise, Where) {
  const Tensor condition = Tensor::from(std::vector<std::uint8_t>{1, 0, 7}, {3});
  const Tensor a = test::random({2, 3}, DType::f32, 1), b = test::random({}, DType::f32, 2);
  const Values x = a.to_doubles();
  const double y = b.item();
  for (const Tensor& la : layouts(a)) EXPECT_EQ(ops::where(condition, la, b).to_doubles(), (Values{x[0], y, x[2], x[3], y, x[5]}));
}

// Long enough for every thread to have work, with blocks that end at odd places.
TEST(Elementwise, ThreadsChangeNoBit) {
  const Tensor a = test::random({257, 1031}, DType::f32, 1), row = test::random({1031}, DType::f32, 2);
  const Tensor column = test::random({257, 1}, DType::f32, 3), narrow = test::random({70001, 3}, DType::f32, 4);
  std::vector<Tensor> first;
  for (const int threads : {1, 2, 3}) {
    test::with_threads(threads, [&] {
      const std::vector<Tensor> results{
          ops::unary<ew::Gelu>(a),           ops::add(a, row),   ops::mul(a, column), ops::mul(test::reversed_order(a), column),
          ops::add(a.to(DType::bf16), row.to(DType::bf16)), ops::mul(narrow, narrow.slice(0, 0, 1)),
          ops::sum(a),                       ops::sum(a, {0}),   ops::sum(a, {1}),    ops::mean(narrow, {0}),
          ops::var(narrow, {0}),             ops::amax(a, {0}),  ops::softmax(a, 1),  ops::log_softmax(narrow, 1),
          ops::dropout(a, 0.3, {1, 2, {}})};
      if (first.empty()) first = results;
      for (std::size_t i = 0; i < results.size(); ++i) {
        SCOPED_TRACE(i);
        expect_same_bits(results[i], first[i]);
      }
    });
  }
}

// ---- reductions

Tensor plain_sum(const Tensor& x, const Dims& dims) {
  const Shape kept = ops::reduced_shape("test", x.shape(), dims, true);
  const Tensor out = Tensor::zeros(kept, DType::f64);
  const Strides strides = contiguous_strides(kept);
  for (const auto& index : indices(x.shape())) {
    std::int64_t place = 0;
    for (int d = 0; d < kept.size(); ++d) place += kept[d] == 1 ? 0 : index[static_cast<std::size_t>(d)] * strides[d];
    out.data<double>()[place] += at(x, index);
  }
  return out;
}

TEST(Reductions, EverySetOfDimensionsInEveryLayout) {
  for (const Shape& shape : {Shape{3, 4, 5, 2}, Shape{2, 40, 3, 3}, Shape{1, 7, 1, 33}}) {
    const Tensor x = test::random(shape, DType::f64, 1);
    for (int mask = 1; mask < 16; ++mask) {
      Dims dims;
      for (int d = 0; d < 4; ++d)
        if ((mask >> d & 1) != 0) dims.push_back(d);
      const Tensor expected = plain_sum(x, dims);
      for (const Tensor& l : layouts(x)) {
        SCOPED_TRACE(fmt::format("{} {} over {}", shape, l.strides(), dims));
        const Tensor found = ops::sum(l, dims, true);
        EXPECT_TRUE(found.is_contiguous());
        expect_close(found, expected, 1e-13, 1e-13);
        expect_close(ops::sum(l.to(DType::f32), dims, true), expected, 1e-6, 1e-5);
        expect_close(ops::sum_to(l, expected.shape()), expected, 1e-13, 1e-13);
        // A maximum by its definition: no value is larger, and one is equal.
        const Tensor top = ops::amax(l, dims, true);
        EXPECT_EQ(ops::sum(ops::gt(l, top)).item(), 0);
        EXPECT_EQ(ops::amin(ops::sum(ops::eq(l, top), dims)).item(), 1);
        expect_same_bits(ops::neg(ops::amin(ops::neg(l), dims, true)), top);
      }
    }
  }
}

TEST(Reductions, LongOnesInEveryShape) {
  const Shape shapes[] = {{100'003}, {3, 70'001}, {70'001, 3}, {300, 700}, {2, 500, 120}, {40'000, 6}, {5, 3, 9000}};
  for (const Shape& shape : shapes) {
    const Tensor x = test::random(shape, DType::f64, 3);
    for (int d = 0; d < shape.size(); ++d) {
      SCOPED_TRACE(fmt::format("{} over {}", shape, d));
      // Against partial sums of slices, which are short.
      Tensor expected = Tensor::zeros(ops::reduced_shape("test", shape, {d}, false), DType::f64);
      const std::int64_t step = std::max<std::int64_t>(shape[d] / 7, 1);
      for (std::int64_t i = 0; i < shape[d]; i += step)
        expected = ops::add(expected, ops::sum(x.slice(d, i, std::min(step, shape[d] - i)).contiguous(), {d}));
      expect_close(ops::sum(x, {d}), expected, 1e-11, 1e-10);
    }
    const double total = std::accumulate(x.data<double>(), x.data<double>() + x.numel(), 0.0);
    EXPECT_NEAR(ops::sum(x).item(), total, 1e-9);
  }
}

// The error of a long f32 sum stays at rounding: adding one by one would be 1e-2 off here.
TEST(Reductions, LongFloatSumsAreAccurate) {
  const Tensor x = Tensor::full({10'000'000}, 0.1f);
  EXPECT_NEAR(ops::sum(x).item(), 1e7 * static_cast<double>(0.1f), 0.1);
  EXPECT_NEAR(ops::mean(x).item(), static_cast<double>(0.1f), 1e-8);
  const Tensor columns = Tensor::full({1'000'000, 3}, 0.1f);
  expect_close(ops::sum(columns, {0}), Tensor::full({3}, 1e6 * static_cast<double>(0.1f), DType::f64), 1e-7, 0);
  const Tensor half = Tensor::full({100'000}, 1, DType::bf16);  // adding in bf16 would stop at 256
  EXPECT_EQ(ops::sum(half).item(), 99840);                     // 100000 rounded to bf16
}

TEST(Reductions, Integers) {
  const Tensor x = Tensor::from(std::vector<std::uint8_t>{200, 100, 50, 7, 8, 9}, {2, 3});
  EXPECT_EQ(ops::sum(x).dtype(), DType::i64);
  EXPECT_EQ(ops::sum(x).item(), 374);
  EXPECT_EQ(ops::sum(x, {0}).to_doubles(), (Values{207, 108, 59}));
  EXPECT_EQ(ops::amax(x, {1}).dtype(), DType::u8);
  EXPECT_EQ(ops::amax(x, {1}).to_doubles(), (Values{200, 9}));
  EXPECT_EQ(ops::amin(x.transpose(0, 1), {0}).to_doubles(), (Values{50, 7}));
  EXPECT_EQ(ops::sum(Tensor::zeros({0}, DType::i32)).item(), 0);
}

TEST(Reductions, Argmax) {
  const Tensor x = Tensor::from(std::vector<float>{1, 5, 5, 9, 2, 3}, {2, 3});
  EXPECT_EQ(ops::argmax(x, 1).dtype(), DType::i64);
  EXPECT_EQ(ops::argmax(x, 1).to_doubles(), (Values{1, 0})) << "the first of equal values";
  EXPECT_EQ(ops::argmax(x, 0, true).shape(), (Shape{1, 3}));
  EXPECT_EQ(ops::argmax(x, 0).to_doubles(), (Values{1, 0, 0}));
  EXPECT_EQ(ops::argmax(x.transpose(0, 1), -1).to_doubles(), (Values{1, 0, 0}));
  const Tensor with_nan = Tensor::from(std::vector<double>{1, kNan, 5}, {3});
  EXPECT_EQ(ops::argmax(with_nan, 0).item(), 1);
  EXPECT_EQ(ops::argmax(Tensor::zeros({0, 3}), 1).shape(), (Shape{0}));
  EXPECT_EQ(error_of([] { ops::argmax(Tensor::zeros({3, 0}), 1); }), "[argmax] of no elements: shape [3, 0]");
}

TEST(Reductions, OfNothing) {
  EXPECT_EQ(ops::sum(Tensor::zeros({0, 3})).item(), 0);
  EXPECT_EQ(ops::sum(Tensor::zeros({0, 3}), {0}).to_doubles(), (Values{0, 0, 0}));
  EXPECT_EQ(ops::sum(Tensor::zeros({0, 3}), {1}).shape(), (Shape{0}));
  EXPECT_TRUE(std::isnan(ops::mean(Tensor::zeros({0})).item()));
  EXPECT_TRUE(std::isnan(ops::mean(Tensor::empty({2, 0}), {1}).to_doubles()[0]));
  EXPECT_EQ(error_of([] { ops::amax(Tensor::zeros({0})); }), "[amax] of no elements: shape [0]");
}

TEST(Reductions, SumToWritesInPlace) {
  const Tensor x = test::random({4, 3, 5}, DType::f64, 1);
  const Tensor strided = test::every_second(Tensor::zeros({3, 1}, DType::f64));
  ops::sum_to(x, strided);
  expect_close(strided, plain_sum(x, {0, 2}).squeeze(0), 1e-13, 1e-13);
  EXPECT_EQ(ops::sum_to(x, {4, 3, 5}).storage(), x.storage()) << "nothing to do";
  EXPECT_EQ(error_of([&] { ops::sum_to(x, {2, 5}); }).find("[sum_to]"), 0u);
}

// ---- matrix products

Tensor plain_matmul(const Tensor& a, const Tensor& b) {
  const std::int64_t m = a.shape()[0], k = a.shape()[1], n = b.shape()[1];
  const Values x = a.to_doubles(), y = b.to_doubles();
  Values z(static_cast<std::size_t>(m * n));
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t p = 0; p < k; ++p)
      for (std::int64_t j = 0; j < n; ++j)
        z[static_cast<std::size_t>(i * n + j)] += x[static_cast<std::size_t>(i * k + p)] * y[static_cast<std::size_t>(p * n + j)];
  return Tensor::from(z, {m, n});
}

TEST(Matmul, EveryLayoutAndSize) {
  const std::int64_t sizes[][3] = {{1, 1, 1}, {1, 5, 7}, {5, 1, 7}, {5, 7, 1}, {4, 3, 2},    {32, 10, 84},
                                   {33, 65, 40}, {128, 64, 96}, {3, 300, 5}, {70, 90, 600}};
  for (const auto& [m, n, k] : sizes) {
    const Tensor a = test::random({m, k}, DType::f64, 1, -1, 1), b = test::random({k, n}, DType::f64, 2, -1, 1);
    const Tensor expected = plain_matmul(a, b);
    const double root = std::sqrt(static_cast<double>(k));
    for (std::size_t i = 0; i < 3; ++i)
      for (std::size_t j = 0; j < 3; ++j) {
        const Tensor x = layouts(a)[i], y = layouts(b)[j];
        SCOPED_TRACE(fmt::format("{} x {} x {}, strides {} {}", m, n, k, x.strides(), y.strides()));
        expect_close(ops::matmul(x, y), expected, 0, 3e-15 * root);
        expect_close(ops::matmul(test::reversed_order(x.to(DType::f32)), y.to(DType::f32)), expected, 0, 1e-6 * root);
      }
    for (const DType dtype : {DType::bf16, DType::f16}) {
      const Tensor x = a.to(dtype), y = b.to(dtype), z = ops::matmul(x, y);
      EXPECT_EQ(z.dtype(), dtype);
      expect_close(z, plain_matmul(x, y), 0x1p-8, 1e-5 * root);  // one rounding at the end
    }
  }
}

// Transposed and row-strided operands are read where they are.
TEST(Matmul, CopiesNoTransposedOperand) {
  const Tensor a = test::random({64, 48}, DType::f32, 1), b = test::random({32, 48}, DType::f32, 2);
  const Tensor wide = test::random({48, 100}, DType::f32, 3);
  Ledger& ledger = current_rank().ledger();
  const auto extra = [&](const Tensor& x, const Tensor& y) {
    ledger.reset_peaks();
    const std::int64_t before = ledger.live(Kind::activations);
    const Tensor z = ops::matmul(x, y);
    return ledger.peak(Kind::activations) - before - z.bytes();
  };
  EXPECT_EQ(extra(a, b.transpose(0, 1)), 0);
  EXPECT_EQ(extra(a.transpose(0, 1), a), 0);
  EXPECT_EQ(extra(a.transpose(0, 1), a.slice(1, 8, 16)), 0);
  EXPECT_EQ(extra(a, wide.slice(1, 3, 20)), 0);
  EXPECT_EQ(extra(a.slice(0, 0, 32, 2), wide), 0);
  EXPECT_GT(extra(a.slice(1, 0, 24, 2), wide.slice(0, 0, 24)), 0) << "a stride in both dimensions needs a copy";
}

TEST(Matmul, BatchesBroadcast) {
  const std::pair<Shape, Shape> shapes[] = {{{2, 3, 4}, {2, 4, 5}}, {{2, 3, 4}, {4, 5}},       {{3, 4}, {2, 4, 5}},
                                            {{2, 1, 3, 4}, {6, 4, 5}}, {{1, 3, 4}, {7, 4, 2}}, {{40, 8, 8}, {40, 8, 8}},
                                            {{0, 3, 4}, {4, 5}},    {{3, 2, 60, 50}, {3, 1, 50, 70}}};
  for (const auto& [sa, sb] : shapes) {
    const Tensor a = test::random(sa, DType::f64, 1, -1, 1), b = test::random(sb, DType::f64, 2, -1, 1);
    for (const auto& [x, y] : {std::pair{a, b}, std::pair{test::reversed_order(a), test::every_second(b)},
                               std::pair{a.to(DType::f32), test::reversed_order(b.to(DType::f32))}}) {
      SCOPED_TRACE(fmt::format("{} x {}", sa, sb));
      const Tensor z = ops::matmul(x, y);
      const Shape batch(std::span(z.shape().begin(), z.shape().end() - 2));
      for (const auto& index : indices(batch)) {
        const auto matrix = [&](Tensor t) {
          const int skip = batch.size() - (t.dim_count() - 2);
          while (t.dim_count() > 2) {
            const auto d = static_cast<std::size_t>(batch.size() - (t.dim_count() - 2));
            t = t.select(0, t.shape()[0] == 1 && static_cast<int>(d) >= skip ? 0 : index[d]);
          }
          return t;
        };
        expect_close(matrix(z), plain_matmul(matrix(x), matrix(y)), 0, x.dtype() == DType::f64 ? 1e-13 : 1e-5);
      }
    }
  }
  EXPECT_EQ(error_of([] { ops::matmul(Tensor::zeros({2, 3, 4}), Tensor::zeros({3, 4, 5})); }),
            "[matmul] shapes [2] and [3] do not broadcast: sizes 2 and 3 at dimension -1; sizes must be equal or 1");
}

// DESIGN section 4: equal bits whatever the buffers' addresses, and in every run.
TEST(Matmul, BitsDependOnValuesAndThreadsAlone) {
  const auto shifted = [](const Tensor& x, std::int64_t by) {
    const Tensor room = Tensor::full({x.numel() + 64}, kNan, x.dtype());
    const Tensor view = room.slice(0, by, x.numel()).reshape(x.shape());
    view.copy_from(x);
    return view;
  };
  for (const int threads : {1, 2}) {
    test::with_threads(threads, [&] {
      for (const DType dtype : {DType::f32, DType::f64})
        for (const auto& [m, n, k] : {std::array<std::int64_t, 3>{32, 10, 84}, {10, 84, 32}, {128, 120, 400}, {513, 77, 333}, {5, 6, 7}, {400, 120, 32}}) {
          const Tensor a = test::random({m, k}, dtype, 1), b = test::random({n, k}, dtype, 2);
          const Tensor first = ops::matmul(a, b.transpose(0, 1)), square = ops::matmul(a.transpose(0, 1), a);
          for (std::int64_t by = 0; by < 18; by += 1 + by / 3) {
            const Tensor x = shifted(a, by), y = shifted(b, 17 - by), out = shifted(first, (by * 5) % 16);
            SCOPED_TRACE(fmt::format("{} x {} x {} by {}", m, n, k, by));
            ops::matmul_into(out, x, y.transpose(0, 1));
            expect_same_bits(out, first);
            expect_same_bits(ops::matmul(x.transpose(0, 1), x), square);
            if (testing::Test::HasFailure()) return;
          }
        }
    });
  }
}

TEST(Matmul, IntoChecksShapes) {
  const Tensor a = Tensor::zeros({2, 3}), b = Tensor::zeros({3, 4});
  EXPECT_EQ(error_of([&] { ops::matmul_into(Tensor::zeros({2, 5}), a, b); }), "[matmul] [2, 3] x [3, 4] does not give [2, 5]");
  EXPECT_EQ(error_of([&] { ops::matmul_into(Tensor::zeros({4, 2}).transpose(0, 1), a, b); }),
            "[matmul] the result [2, 4] must be contiguous");
}

TEST(Linear, FusesBiasAndRelu) {
  for (const DType dtype : {DType::f64, DType::f32}) {
    const Tensor x = test::random({5, 3, 7}, dtype, 1), w = test::random({4, 7}, dtype, 2), b = test::random({4}, dtype, 3);
    const Tensor plain = ops::matmul(x, w.transpose(0, 1));
    const double tolerance = dtype == DType::f64 ? 1e-14 : 1e-5;
    expect_close(ops::linear(x, w), plain, 0, tolerance);
    expect_close(ops::linear(x, w, b), ops::add(plain, b), 0, tolerance);
    expect_same_bits(ops::linear(x, w, b, true), ops::relu(ops::linear(x, w, b)));
    expect_same_bits(ops::linear(x, w, {}, true), ops::relu(ops::linear(x, w)));
    expect_close(ops::linear(test::reversed_order(x), test::reversed_order(w), b), ops::linear(x, w, b), 0, tolerance);
  }
  const Tensor nan = Tensor::full({1, 2}, kNan);
  EXPECT_TRUE(std::isnan(ops::linear(nan, Tensor::full({1, 2}, 1), Tensor::zeros({1}), true).item()));
}

// ---- the rest

TEST(Dropout, KeepsTheRightShareAndScale) {
  const Tensor x = Tensor::full({100, 1000}, 1);
  const Tensor y = ops::dropout(x, 0.3, {5, 6, {}});
  std::int64_t dropped = 0;
  for (const double v : y.to_doubles()) {
    if (v == 0) ++dropped;
    else ASSERT_FLOAT_EQ(static_cast<float>(v), 1 / 0.7f);
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
      expect_same_bits(ops::dropout(x.slice(0, r * n, n), 0.5, {1, 2, {3, 40 + r * n}}), whole.slice(0, r * n, n).contiguous());
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
  for (const DType dtype : {DType::f64, DType::bf16, DType::f16}) EXPECT_EQ(ops::dropout(x.to(dtype), 0.5, key).to_doubles(), mask);
}

TEST(Embedding, GradientsAddUpInOrderForEveryThreadCount) {
  const std::int64_t rows = 50, dim = 33, count = 4000;
  std::vector<std::int64_t> index(count);
  for (std::size_t i = 0; i < index.size(); ++i) index[i] = static_cast<std::int64_t>(i * i % 47);
  const Tensor indices = Tensor::from(index, {40, 100}), grad = test::random({40, 100, dim}, DType::f32, 1);
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
  for (std::size_t i = 0; i < index.size(); ++i)
    for (std::size_t j = 0; j < dim; ++j)
      if (index[i] != 4) expected[static_cast<std::size_t>(index[i] * dim) + j] += grad.data<float>()[i * dim + j];
  expect_same_bits(first, Tensor::from(expected, {rows, dim}));
}

TEST(Shapes, CatAndPadKeepChannelsLast) {
  const Tensor x = test::random({2, 3, 4, 5}, DType::f32).channels_last();
  EXPECT_TRUE(ops::cat(std::vector<Tensor>{x, x}, 1).is_channels_last());
  EXPECT_TRUE(ops::pad(x, {1, 1, 1, 1}).is_channels_last());
  EXPECT_EQ(ops::pad(x, {1, 1, 1, 1}).to_doubles(), ops::pad(x.contiguous(), {1, 1, 1, 1}).to_doubles());
  EXPECT_EQ(error_of([&] { ops::cat(std::vector<Tensor>{x, x.to(DType::f64)}, 0); }),
            "[cat] mixed dtypes: f32 [2, 3, 4, 5] and f64 [2, 3, 4, 5]; cast one of them");
}

}  // namespace
}  // namespace sg
