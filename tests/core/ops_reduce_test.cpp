// Reductions against plain loops, over sets of dimensions, layouts and dtypes.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
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

Tensor plain_sum(const Tensor& x, const Dims& dims) {
  const Shape kept = ops::reduced_shape("test", x.shape(), dims, true);
  const Tensor out = Tensor::zeros(kept, DType::f64, kCpu), values = x.to(kCpu);
  const Strides strides = contiguous_strides(kept);
  for (const auto& index : indices(x.shape())) {
    std::int64_t place = 0;
    for (int d = 0; d < kept.size(); ++d)
      place += kept[d] == 1 ? 0 : index[static_cast<std::size_t>(d)] * strides[d];
    out.data<double>()[place] += test::at(values, index);
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
  const Shape shapes[] = {{100'003},     {3, 70'001}, {70'001, 3}, {300, 700},
                          {2, 500, 120}, {40'000, 6}, {5, 3, 9000}};
  for (const Shape& shape : shapes) {
    const Tensor x = test::random(shape, DType::f64, 3);
    for (int d = 0; d < shape.size(); ++d) {
      SCOPED_TRACE(fmt::format("{} over {}", shape, d));
      // Against partial sums of slices, which are short.
      Tensor expected = Tensor::zeros(ops::reduced_shape("test", shape, {d}, false), DType::f64);
      const std::int64_t step = std::max<std::int64_t>(shape[d] / 7, 1);
      for (std::int64_t i = 0; i < shape[d]; i += step)
        expected = ops::add(
            expected, ops::sum(x.slice(d, i, std::min(step, shape[d] - i)).contiguous(), {d}));
      expect_close(ops::sum(x, {d}), expected, 1e-11, 1e-10);
    }
    const Values values = x.to_doubles();
    const double total = std::accumulate(values.begin(), values.end(), 0.0);
    EXPECT_NEAR(ops::sum(x).item(), total, 1e-9);
  }
}

// The error of a long f32 sum stays at rounding: adding one by one would be 1e-2 off here.
TEST(Reductions, LongFloatSumsAreAccurate) {
  const Tensor x = Tensor::full({10'000'000}, 0.1f);
  EXPECT_NEAR(ops::sum(x).item(), 1e7 * static_cast<double>(0.1f), 0.1);
  EXPECT_NEAR(ops::mean(x).item(), static_cast<double>(0.1f), 1e-8);
  const Tensor columns = Tensor::full({1'000'000, 3}, 0.1f);
  expect_close(ops::sum(columns, {0}),
               Tensor::full({3}, 1e6 * static_cast<double>(0.1f), DType::f64), 1e-7, 0);
  const Tensor half = Tensor::full({100'000}, 1, DType::bf16);  // adding in bf16 would stop at 256
  EXPECT_EQ(ops::sum(half).item(), 99840);                      // 100000 rounded to bf16
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
  EXPECT_EQ(error_of([] {
              ops::argmax(Tensor::zeros({3, 0}), 1);
            }),
            "[argmax] of no elements: shape [3, 0]");
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

}  // namespace
}  // namespace sg
