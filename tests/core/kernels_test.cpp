// The kernel tables: accuracy of the elementary functions, and the same bits from every instruction
// set.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <optional>
#include <type_traits>

#include "core/kernels/math.h"
#include "core/rng.h"
#include "tests/support/isas.h"
#include "tests/support/testing.h"

namespace sg {
namespace {

using kernels::ElementwiseLoops;
using test::kInfinity;
using test::kNan;

// Distance in units of the last place of a float of the size of `exact`.
double ulps(float found, double exact) {
  const float near = static_cast<float>(exact);
  const double unit =
      std::max(std::abs(static_cast<double>(std::nextafter(near, 1e38f)) - near), 0x1p-149);
  return std::abs(found - exact) / unit;
}

// Floats of both signs over all exponents in [2^low, 2^high], and dense ones in [-20, 20].
std::vector<float> arguments(int low, int high) {
  std::vector<float> x;
  for (int e = low; e <= high; ++e)
    for (int i = 0; i < 64; ++i)
      for (const float sign : {1.0f, -1.0f})
        x.push_back(sign * std::ldexp(1.0f + static_cast<float>(i) / 64.0f, e));
  for (int i = -20000; i <= 20000; ++i) x.push_back(static_cast<float>(i) * 1e-3f + 1e-5f);
  return x;
}

void expect_accurate(const char* name, const std::vector<float>& x, double most,
                     float (*ours)(float), double (*exact)(double)) {
  double worst = 0;
  float where = 0;
  for (const float v : x) {
    const double e = exact(static_cast<double>(v));
    const float found = ours(v);
    if (std::isnan(e)) {
      ASSERT_TRUE(std::isnan(found)) << name << " " << v;
      continue;
    }
    // Beyond float's range the answer is infinity; below its normal numbers any of them or 0.
    if (std::abs(e) > 3.4028235e38) {
      ASSERT_TRUE(std::isinf(found) && (found > 0) == (e > 0)) << name << " " << v << " " << found;
      continue;
    }
    if (std::abs(e) < 0x1p-126) {
      ASSERT_LE(std::abs(found), 0x1p-126f) << name << " " << v;
      continue;
    }
    const double u = ulps(found, e);
    if (u > worst) {
      worst = u;
      where = v;
    }
  }
  EXPECT_LE(worst, most) << name << " at " << where;
}

TEST(Math, FloatFunctionsAreWithinAFewUlps) {
  namespace m = kernels::math;
  const std::vector<float> all = arguments(-120, 120);
  expect_accurate(
      "exp", all, 1.5, [](float x) { return m::exp(x); }, [](double x) { return std::exp(x); });
  expect_accurate(
      "log", all, 1.5, [](float x) { return m::log(x); }, [](double x) { return std::log(x); });
  expect_accurate(
      "log1p", all, 3, [](float x) { return m::log1p(x); }, [](double x) { return std::log1p(x); });
  expect_accurate(
      "expm1", all, 1.5, [](float x) { return m::expm1(x); },
      [](double x) { return std::expm1(x); });
  expect_accurate(
      "tanh", all, 3, [](float x) { return m::tanh(x); }, [](double x) { return std::tanh(x); });
  expect_accurate(
      "erf", all, 3, [](float x) { return m::erf(x); }, [](double x) { return std::erf(x); });
  expect_accurate(
      "sigmoid", all, 3, [](float x) { return m::sigmoid(x); },
      [](double x) { return 1 / (1 + std::exp(-x)); });
}

TEST(Math, SpecialValues) {
  namespace m = kernels::math;
  const auto inf = static_cast<float>(kInfinity), nan = static_cast<float>(kNan);
  EXPECT_EQ(m::exp(inf), inf);
  EXPECT_EQ(m::exp(-inf), 0.0f);
  EXPECT_EQ(m::exp(0.0f), 1.0f);
  EXPECT_EQ(m::exp(88.72f), std::exp(88.72f));
  EXPECT_EQ(m::exp(88.73f), inf);
  EXPECT_EQ(m::log(0.0f), -inf);
  EXPECT_EQ(m::log(1.0f), 0.0f);
  EXPECT_EQ(m::log(inf), inf);
  EXPECT_TRUE(std::isnan(m::log(-1.0f)));
  EXPECT_EQ(m::tanh(inf), 1.0f);
  EXPECT_EQ(m::tanh(-inf), -1.0f);
  EXPECT_EQ(m::tanh(1e-20f), 1e-20f);
  EXPECT_EQ(m::erf(inf), 1.0f);
  EXPECT_EQ(m::erf(-inf), -1.0f);
  EXPECT_EQ(m::log1p(-1.0f), -inf);
  EXPECT_EQ(m::log1p(inf), inf);
  EXPECT_EQ(m::expm1(-inf), -1.0f);
  EXPECT_EQ(m::sigmoid(inf), 1.0f);
  EXPECT_EQ(m::sigmoid(-inf), 0.0f);
  for (const float f : {m::exp(nan), m::log(nan), m::tanh(nan), m::erf(nan), m::log1p(nan),
                        m::expm1(nan), m::sigmoid(nan)})
    EXPECT_TRUE(std::isnan(f));
}

// ---- the same bits everywhere

template <class T>
std::vector<T> values(std::int64_t n, std::uint64_t seed, double low, double high) {
  std::vector<T> x(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) {
    const auto w = philox(seed, static_cast<std::uint64_t>(i), 1);
    x[static_cast<std::size_t>(i)] = convert<T>(low + (high - low) * uniform_double(w[0], w[1]));
  }
  return x;
}

// Runs `compute(tables)` for each instruction set; all results must equal the first, bit for bit.
template <class F>
void expect_one_result(const F& compute) {
  std::optional<decltype(compute(std::declval<const test::IsaTables&>()))> first;
  test::for_each_isa([&](const test::IsaTables& tables) {
    auto result = compute(tables);
    if (!first) {
      first = std::move(result);
      return;
    }
    ASSERT_EQ(result.size(), first->size());
    for (std::size_t i = 0; i < result.size(); ++i)
      ASSERT_EQ(std::memcmp(&result[i], &(*first)[i], sizeof(result[i])), 0)
          << "value " << i << ": " << result[i] << " against " << (*first)[i];
  });
}

template <class T>
void elementwise_agrees() {
  constexpr std::int64_t n = 1037;
  const std::vector<T> a = values<T>(n, 1, -6, 6), b = values<T>(n, 2, 0.1, 5),
                       g = values<T>(n, 3, -1, 1);
  constexpr bool floating = std::is_floating_point_v<T>;
  ew::for_each(ew::Unary{}, [&](auto op) {
    constexpr int i = ew::index_of<decltype(op), ew::Unary>;
    if (!floating && !ew::has_integers<decltype(op)>) return;
    SCOPED_TRACE(op.name);
    for (const auto* x : {&a, &b}) {
      expect_one_result([&](const test::IsaTables& t) {
        std::vector<T> y(n);
        t.elementwise().template loops<T>().unary[i](x->data(), y.data(), n, T(2), T(3));
        return y;
      });
      if constexpr (floating)
        expect_one_result([&](const test::IsaTables& t) {
          std::vector<T> y(n);
          t.elementwise().template loops<T>().unary_grad[i](x->data(), b.data(), g.data(), y.data(),
                                                            n, T(2), T(3));
          return y;
        });
    }
  });
  ew::for_each(ew::Binary{}, [&](auto op) {
    constexpr int i = ew::index_of<decltype(op), ew::Binary>;
    if (!floating && !ew::has_integers<decltype(op)>) return;
    SCOPED_TRACE(op.name);
    expect_one_result([&](const test::IsaTables& t) {
      std::vector<T> y(n);
      t.elementwise().template loops<T>().binary[i](a.data(), b.data(), y.data(), n);
      return y;
    });
    if constexpr (floating)
      for (const bool first : {true, false})
        expect_one_result([&](const test::IsaTables& t) {
          std::vector<T> y(n);
          const auto& loops = t.elementwise().template loops<T>();
          (first ? loops.grad_a : loops.grad_b)[i](a.data(), b.data(), g.data(), y.data(), n);
          return y;
        });
  });
  ew::for_each(ew::Compare{}, [&](auto op) {
    constexpr int i = ew::index_of<decltype(op), ew::Compare>;
    expect_one_result([&](const test::IsaTables& t) {
      std::vector<std::uint8_t> y(n);
      t.elementwise().template loops<T>().compare[i](a.data(), b.data(), y.data(), n);
      return y;
    });
  });
}

TEST(Kernels, ElementwiseGivesTheSameBitsOnEveryInstructionSet) {
  elementwise_agrees<float>();
  elementwise_agrees<double>();
  elementwise_agrees<std::int64_t>();
  elementwise_agrees<std::int32_t>();
  elementwise_agrees<std::uint8_t>();
}

template <class T>
const kernels::ReduceLoops<T>& reduce_of(const test::IsaTables& t) {
  if constexpr (std::is_same_v<T, float>)
    return t.reduce().f32;
  else
    return t.reduce().f64;
}
template <class T>
const kernels::RowLoops<T>& rows_of(const test::IsaTables& t) {
  if constexpr (std::is_same_v<T, float>)
    return t.rows().f32;
  else
    return t.rows().f64;
}
template <class T>
const kernels::MatmulLoops<T>& matmul_of(const test::IsaTables& t) {
  if constexpr (std::is_same_v<T, float>)
    return t.matmul().f32;
  else
    return t.matmul().f64;
}

template <class T>
void reductions_agree() {
  for (const std::int64_t n : {1, 5, 31, 32, 33, 100, 2048, 5001}) {
    std::vector<T> x = values<T>(n * 19, 4, -3, 3);
    for (int fold = 0; fold < kernels::kFolds; ++fold)
      for (const bool with_nan : {false, true}) {
        if (with_nan) x[static_cast<std::size_t>(n / 2)] = static_cast<T>(kNan);
        SCOPED_TRACE(std::to_string(n) + " fold " + std::to_string(fold));
        const auto run = [&](const test::IsaTables& t) {
          const auto& loops = reduce_of<T>(t);
          std::vector<double> out{loops.row[fold](x.data(), n,
                                                  fold == 0   ? 0.0
                                                  : fold == 1 ? -kInfinity
                                                              : kInfinity)};
          std::vector<double> sums(static_cast<std::size_t>(n), x[0]);
          loops.rows[fold](x.data(), n, 19, n, sums.data());
          out.insert(out.end(), sums.begin(), sums.end());
          return out;
        };
        if (!with_nan)
          expect_one_result(run);
        else
          test::for_each_isa([&](const test::IsaTables& t) { EXPECT_TRUE(std::isnan(run(t)[0])); });
      }
  }
}

TEST(Kernels, ReductionsGiveTheSameBitsOnEveryInstructionSet) {
  reductions_agree<float>();
  reductions_agree<double>();
}

template <class T>
void rows_agree() {
  for (const std::int64_t n : {1, 3, 10, 16, 17, 32, 33, 100, 1500}) {
    SCOPED_TRACE(n);
    constexpr std::int64_t rows = 21;
    const auto x = values<T>(rows * n, 5, -8, 8), g = values<T>(rows * n, 6, -1, 1),
               w = values<T>(n, 7, -1, 1);
    std::vector<std::int64_t> targets(rows);
    for (std::int64_t r = 0; r < rows; ++r)
      targets[static_cast<std::size_t>(r)] = r == 4 ? -100 : r % n;
    expect_one_result([&](const test::IsaTables& t) {
      const auto& loops = rows_of<T>(t);
      std::vector<T> all;
      std::vector<T> y(static_cast<std::size_t>(rows * n)), mean(rows), rstd(rows), stats(2 * rows),
          loss(rows);
      const auto keep = [&](const std::vector<T>& v) { all.insert(all.end(), v.begin(), v.end()); };
      loops.softmax(x.data(), y.data(), rows, n), keep(y);
      loops.softmax_grad(x.data(), g.data(), y.data(), rows, n), keep(y);
      loops.log_softmax(x.data(), y.data(), rows, n), keep(y);
      loops.log_softmax_grad(x.data(), g.data(), y.data(), rows, n), keep(y);
      loops.layer_norm(x.data(), w.data(), w.data(), y.data(), rows, n, T(1e-5), mean.data(),
                       rstd.data());
      keep(y), keep(mean), keep(rstd);
      loops.layer_norm_grad(x.data(), w.data(), g.data(), y.data(), rows, n, mean.data(),
                            rstd.data()),
          keep(y);
      for (const T smoothing : {T(0), T(0.1)}) {
        const kernels::CrossEntropyRows<T> c{x.data(), targets.data(), nullptr,  stats.data(),
                                             n,        -100,           smoothing};
        loops.cross_entropy(c, 0, rows, loss.data()), keep(loss);
        const T scale = T(0.25);
        loops.cross_entropy_grad(c, 0, rows, &scale, 0, y.data()), keep(y);
      }
      return all;
    });
  }
}

TEST(Kernels, RowProgramsGiveTheSameBitsOnEveryInstructionSet) {
  rows_agree<float>();
  rows_agree<double>();
}

// A row's bits depend neither on its neighbours nor on its place among them: a batch may be cut
// anywhere.
TEST(Kernels, ARowDoesNotDependOnItsPlace) {
  for (const std::int64_t n : {3, 10, 32, 40}) {
    constexpr std::int64_t rows = 37;
    const auto x = values<float>(rows * n, 5, -8, 8);
    test::for_each_isa([&](const test::IsaTables& t) {
      std::vector<float> whole(static_cast<std::size_t>(rows * n)), cut(whole.size());
      t.rows().f32.log_softmax(x.data(), whole.data(), rows, n);
      for (std::int64_t r = 0; r < rows; r += 5)
        t.rows().f32.log_softmax(x.data() + r * n, cut.data() + r * n,
                                 std::min<std::int64_t>(5, rows - r), n);
      EXPECT_EQ(whole, cut);
    });
  }
}

TEST(Kernels, DropoutMasksAreThoseOfPhilox) {
  const kernels::DropoutMask mask{99, 0x60000000u, 1.5};
  for (const std::int64_t n : {1, 4, 5, 127, 128, 1001}) {
    const std::vector<float> x(static_cast<std::size_t>(n), 1.0f);
    expect_one_result([&](const test::IsaTables& t) {
      std::vector<float> y(x.size());
      t.random().dropout_f32(x.data(), y.data(), n, 8, 12345678901, mask);
      for (std::int64_t i = 0; i < n; ++i) {
        const std::uint32_t word = philox(99, static_cast<std::uint64_t>((8 + i) / 4),
                                          12345678901)[static_cast<std::size_t>((8 + i) % 4)];
        EXPECT_EQ(y[static_cast<std::size_t>(i)], word < 0x60000000u ? 0.0f : 1.5f);
      }
      return y;
    });
  }
}

// ---- our own matrix product

template <class T>
void matmul_agrees(double tolerance) {
  const std::int64_t sizes[][3] = {{1, 1, 1},     {3, 2, 5},   {12, 32, 7},   {13, 33, 64},
                                   {40, 17, 300}, {6, 70, 1},  {200, 40, 30}, {25, 100, 513},
                                   {2, 2500, 3},  {17, 10, 84}};
  for (const auto& size : sizes)
    for (const bool a_transposed : {false, true})
      for (const bool b_transposed : {false, true}) {
        const std::int64_t m = size[0], n = size[1], k = size[2];
        SCOPED_TRACE(fmt::format("{} x {} x {} {}{}", m, n, k, a_transposed, b_transposed));
        const auto a = values<T>(m * k, 8, -1, 1), b = values<T>(k * n, 9, -1, 1);
        const kernels::MatrixView<T> va{a.data(), a_transposed ? 1 : k, a_transposed ? m : 1};
        const kernels::MatrixView<T> vb{b.data(), b_transposed ? 1 : n, b_transposed ? k : 1};
        std::vector<double> exact(static_cast<std::size_t>(m * n));
        for (std::int64_t i = 0; i < m; ++i)
          for (std::int64_t p = 0; p < k; ++p)
            for (std::int64_t j = 0; j < n; ++j)
              exact[static_cast<std::size_t>(i * n + j)] +=
                  static_cast<double>(va.data[i * va.row + p * va.column]) *
                  static_cast<double>(vb.data[p * vb.row + j * vb.column]);
        test::for_each_isa([&](const test::IsaTables& t) {
          const auto& loops = matmul_of<T>(t);
          const std::int64_t ldc = n + 3;
          std::vector<T> c(static_cast<std::size_t>(m * ldc), T(77));
          std::vector<char> scratch(static_cast<std::size_t>(loops.scratch_bytes(m, n, k)) + 64);
          void* aligned =
              scratch.data() + (64 - reinterpret_cast<std::uintptr_t>(scratch.data()) % 64) % 64;
          loops.multiply(m, n, k, va, vb, c.data(), ldc, aligned);
          for (std::int64_t i = 0; i < m; ++i)
            for (std::int64_t j = 0; j < ldc; ++j) {
              const T found = c[static_cast<std::size_t>(i * ldc + j)];
              if (j >= n)
                ASSERT_EQ(found, T(77)) << "wrote beside the block";
              else
                ASSERT_NEAR(found, exact[static_cast<std::size_t>(i * n + j)],
                            tolerance * std::sqrt(k))
                    << i << " " << j;
            }
          // The same element in a smaller block has the same bits: threads may cut anywhere.
          if (m > 2 && n > 2) {
            std::vector<T> part(static_cast<std::size_t>((m - 1) * n));
            loops.multiply(m - 1, n - 1, k, {va.data + va.row, va.row, va.column},
                           {vb.data + vb.column, vb.row, vb.column}, part.data(), n, aligned);
            for (std::int64_t i = 0; i < m - 1; ++i)
              for (std::int64_t j = 0; j < n - 1; ++j)
                ASSERT_EQ(part[static_cast<std::size_t>(i * n + j)],
                          c[static_cast<std::size_t>((i + 1) * ldc + j + 1)]);
          }
        });
        if (testing::Test::HasFailure()) return;
      }
}

TEST(Kernels, OwnMatrixProduct) {
  matmul_agrees<float>(1e-6);
  matmul_agrees<double>(2e-15);
}

}  // namespace
}  // namespace sg
