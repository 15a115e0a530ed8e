// Matrix products against plain loops, over layouts, batches, dtypes, addresses and threads.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "core/ops.h"
#include "core/parallel.h"
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

Tensor plain_matmul(const Tensor& a, const Tensor& b) {
  const std::int64_t m = a.shape()[0], k = a.shape()[1], n = b.shape()[1];
  const Values x = a.to_doubles(), y = b.to_doubles();
  Values z(static_cast<std::size_t>(m * n));
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t p = 0; p < k; ++p)
      for (std::int64_t j = 0; j < n; ++j)
        z[static_cast<std::size_t>(i * n + j)] +=
            x[static_cast<std::size_t>(i * k + p)] * y[static_cast<std::size_t>(p * n + j)];
  return Tensor::from(z, {m, n});
}

TEST(Matmul, EveryLayoutAndSize) {
  const std::int64_t sizes[][3] = {{1, 1, 1},   {1, 5, 7},    {5, 1, 7},    {5, 7, 1},
                                   {4, 3, 2},   {32, 10, 84}, {33, 65, 40}, {128, 64, 96},
                                   {3, 300, 5}, {70, 90, 600}};
  for (const auto& [m, n, k] : sizes) {
    const Tensor a = test::random({m, k}, DType::f64, 1, -1, 1),
                 b = test::random({k, n}, DType::f64, 2, -1, 1);
    const Tensor expected = plain_matmul(a, b);
    const double root = std::sqrt(static_cast<double>(k));
    for (std::size_t i = 0; i < 3; ++i)
      for (std::size_t j = 0; j < 3; ++j) {
        const Tensor x = layouts(a)[i], y = layouts(b)[j];
        SCOPED_TRACE(fmt::format("{} x {} x {}, strides {} {}", m, n, k, x.strides(), y.strides()));
        expect_close(ops::matmul(x, y), expected, 0, 3e-15 * root);
        expect_close(ops::matmul(test::reversed_order(x.to(DType::f32)), y.to(DType::f32)),
                     expected, 0, 1e-6 * root);
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
  EXPECT_GT(extra(a.slice(1, 0, 24, 2), wide.slice(0, 0, 24)), 0)
      << "a stride in both dimensions needs a copy";
}

TEST(Matmul, BatchesBroadcast) {
  const std::pair<Shape, Shape> shapes[] = {
      {{2, 3, 4}, {2, 4, 5}}, {{2, 3, 4}, {4, 5}},
      {{3, 4}, {2, 4, 5}},    {{2, 1, 3, 4}, {6, 4, 5}},
      {{1, 3, 4}, {7, 4, 2}}, {{40, 8, 8}, {40, 8, 8}},
      {{0, 3, 4}, {4, 5}},    {{3, 2, 60, 50}, {3, 1, 50, 70}}};
  for (const auto& [sa, sb] : shapes) {
    const Tensor a = test::random(sa, DType::f64, 1, -1, 1),
                 b = test::random(sb, DType::f64, 2, -1, 1);
    for (const auto& [x, y] :
         {std::pair{a, b}, std::pair{test::reversed_order(a), test::every_second(b)},
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
        expect_close(matrix(z), plain_matmul(matrix(x), matrix(y)), 0,
                     x.dtype() == DType::f64 ? 1e-13 : 1e-5);
      }
    }
  }
  EXPECT_EQ(error_of([] {
              ops::matmul(Tensor::zeros({2, 3, 4}), Tensor::zeros({3, 4, 5}));
            }),
            "[matmul] shapes [2] and [3] do not broadcast: sizes 2 and 3 at dimension -1; sizes "
            "must be equal or 1");
}

// Batches of products with a wide transposed right-hand side, as attention's: the loop over batches
// is the parallel one, and its threads allocate nothing, on the rank or on their own.
TEST(Matmul, BatchesOfWideTransposedFactorsOnAnyNumberOfThreads) {
  if (current_rank().device.is_cuda()) GTEST_SKIP() << "about the CPU's compute threads";
  const std::array<std::int64_t, 4> sizes[] = {
      {4, 113, 226, 512}, {8, 8, 32, 512}, {6, 3, 300, 700}, {16, 1, 2, 600}};
  for (const auto& [batches, m, n, k] : sizes) {
    const Tensor a = test::random({batches, m, k}, DType::f32, 1, -1, 1),
                 b = test::random({batches, n, k}, DType::f32, 2, -1, 1).transpose(1, 2);
    const Tensor expected = ops::matmul(a.to(DType::f64), b.to(DType::f64));
    for (const int threads : {1, 2, 3, 5, 64}) {
      SCOPED_TRACE(fmt::format("{} of {} x {} x {} on {}", batches, m, n, k, threads));
      Rank rank(0, 1, threads, 0);
      const RankScope scope(rank);
      const auto of_each_thread = [&](const auto& f) {
        std::vector<std::int64_t> values(static_cast<std::size_t>(threads));
        parallel_for(threads, 1, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t t = begin; t < end; ++t)
            values[static_cast<std::size_t>(t)] = f(current_rank().ledger());
        });
        return values;
      };
      const auto peak = [](Ledger& ledger) { return ledger.peak(Kind::buffers); };
      of_each_thread([](Ledger& ledger) {
        ledger.reset_peaks();
        return std::int64_t{0};
      });
      const std::vector<std::int64_t> before = of_each_thread(peak);
      expect_close(ops::matmul(a, b), expected, 0, 1e-6 * static_cast<double>(k));
#if SG_ONEDNN
      if (m * n * k < (std::int64_t{1} << 18) * threads) {
        EXPECT_EQ(of_each_thread(peak), before);
      }
#else
      static_cast<void>(before);
#endif
    }
  }
}

// Plans are compared bit for bit, and their buffers lie at different addresses: a kernel that takes
// another path for aligned ones would make them differ.
TEST(Matmul, BitsDependOnValuesAndThreadsAlone) {
  const auto shifted = [](const Tensor& x, std::int64_t by) {
    const Tensor room = Tensor::full({x.numel() + 64}, kNan, x.dtype());
    const Tensor view = room.slice(0, by, x.numel()).reshape(x.shape());
    view.copy_from(x);
    return view;
  };
  // The plain loops of the stand-in for a GPU take long, whatever the address.
  const bool plain = SG_STAND_IN && current_rank().device.is_cuda();
  for (const int threads : {1, 2}) {
    test::with_threads(threads, [&] {
      for (const DType dtype : {DType::f32, DType::f64})
        for (const auto& [m, n, k] : {std::array<std::int64_t, 3>{32, 10, 84},
                                      {10, 84, 32},
                                      {128, 120, 400},
                                      {513, 77, 333},
                                      {5, 6, 7},
                                      {400, 120, 32}}) {
          if (plain && m * n * k > 500'000) continue;
          const Tensor a = test::random({m, k}, dtype, 1), b = test::random({n, k}, dtype, 2);
          const Tensor first = ops::matmul(a, b.transpose(0, 1)),
                       square = ops::matmul(a.transpose(0, 1), a);
          for (std::int64_t by = 0; by < 18; by += 1 + by / 3) {
            const Tensor x = shifted(a, by), y = shifted(b, 17 - by),
                         out = shifted(first, (by * 5) % 16);
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
  EXPECT_EQ(error_of([&] {
              ops::matmul_into(Tensor::zeros({2, 5}), a, b);
            }),
            "[matmul] [2, 3] x [3, 4] does not give [2, 5]");
  EXPECT_EQ(error_of([&] {
              ops::matmul_into(Tensor::zeros({4, 2}).transpose(0, 1), a, b);
            }),
            "[matmul] the result [2, 4] must be contiguous");
}

TEST(Linear, FusesBiasAndRelu) {
  for (const DType dtype : {DType::f64, DType::f32}) {
    const Tensor x = test::random({5, 3, 7}, dtype, 1), w = test::random({4, 7}, dtype, 2),
                 b = test::random({4}, dtype, 3);
    const Tensor plain = ops::matmul(x, w.transpose(0, 1));
    const double tolerance = dtype == DType::f64 ? 1e-14 : 1e-5;
    expect_close(ops::linear(x, w), plain, 0, tolerance);
    expect_close(ops::linear(x, w, b), ops::add(plain, b), 0, tolerance);
    expect_same_bits(ops::linear(x, w, b, true), ops::relu(ops::linear(x, w, b)));
    expect_same_bits(ops::linear(x, w, {}, true), ops::relu(ops::linear(x, w)));
    expect_close(ops::linear(test::reversed_order(x), test::reversed_order(w), b),
                 ops::linear(x, w, b), 0, tolerance);
  }
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const Tensor x = test::random({33, 40}, dtype, 1), w = test::random({24, 40}, dtype, 2),
                 b = test::random({24}, dtype, 3);
    const auto f32 = [](const Tensor& t) { return t.to(DType::f32); };
    expect_close(ops::linear(x, w, b, true), ops::linear(f32(x), f32(w), f32(b), true), 0x1p-8,
                 1e-5);  // one rounding at the end
  }
  const Tensor b = test::random({4}, DType::f32, 3), none = Tensor::zeros({3, 0});
  expect_same_bits(ops::linear(none, Tensor::zeros({4, 0}), b, true),
                   ops::relu(b.expand({3, 4})).contiguous());
  const Tensor nan = Tensor::full({1, 2}, kNan);
  EXPECT_TRUE(
      std::isnan(ops::linear(nan, Tensor::full({1, 2}, 1), Tensor::zeros({1}), true).item()));
}

}  // namespace
}  // namespace sg
