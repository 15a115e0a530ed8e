// Convolutions: the reference against six plain loops, and every other algorithm against the
// reference in double.
#include "core/conv.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "core/check.h"
#include "core/ops.h"
#include "tests/support/testing.h"

namespace sg {
namespace {

using ops::ConvAlgorithm;

struct Case {
  Shape x, weight;
  Conv2dOptions options;
};

std::string describe(const Case& c) {
  return fmt::format("x {} weight {} stride {} {} padding {} {} dilation {} {} groups {}", c.x,
                     c.weight, c.options.stride[0], c.options.stride[1], c.options.padding[0],
                     c.options.padding[1], c.options.dilation[0], c.options.dilation[1],
                     c.options.groups);
}

Tensor random(const Shape& shape, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  std::vector<double> values(static_cast<std::size_t>(numel(shape)));
  for (double& v : values) v = static_cast<double>(static_cast<float>(normal(generator)));
  return Tensor::from(values, shape);
}

// The definition, in double.
struct Naive {
  Tensor y, dx, dw, db;
  Naive(const Tensor& x_, const Tensor& w_, const Tensor& b_, const Tensor& dy_,
        const Conv2dOptions& o)
      : y(Tensor::zeros(dy_.shape(), DType::f64, kCpu)),
        dx(Tensor::zeros(x_.shape(), DType::f64, kCpu)),
        dw(Tensor::zeros(w_.shape(), DType::f64, kCpu)),
        db(Tensor::zeros(b_.shape(), DType::f64, kCpu)) {
    const Tensor x = x_.to(kCpu), w = w_.to(kCpu), b = b_.to(kCpu), dy = dy_.to(kCpu);
    const auto at = [](const Tensor& t, std::int64_t i, std::int64_t j, std::int64_t k,
                       std::int64_t l) -> double& {
      const Strides& s = t.strides();
      return t.data<double>()[i * s[0] + j * s[1] + k * s[2] + l * s[3]];
    };
    const std::int64_t outs = w.size(0) / o.groups;
    for (std::int64_t n = 0; n < x.size(0); ++n)
      for (std::int64_t f = 0; f < w.size(0); ++f)
        for (std::int64_t oy = 0; oy < dy.size(2); ++oy)
          for (std::int64_t ox = 0; ox < dy.size(3); ++ox) {
            const double g = at(dy, n, f, oy, ox);
            db.data<double>()[f] += g;
            double sum = b.data<double>()[f];
            for (std::int64_t c = 0; c < w.size(1); ++c)
              for (std::int64_t i = 0; i < w.size(2); ++i)
                for (std::int64_t j = 0; j < w.size(3); ++j) {
                  const std::int64_t v = oy * o.stride[0] - o.padding[0] + i * o.dilation[0];
                  const std::int64_t u = ox * o.stride[1] - o.padding[1] + j * o.dilation[1];
                  if (v < 0 || v >= x.size(2) || u < 0 || u >= x.size(3)) continue;
                  const std::int64_t channel = f / outs * w.size(1) + c;
                  sum += at(x, n, channel, v, u) * at(w, f, c, i, j);
                  at(dx, n, channel, v, u) += g * at(w, f, c, i, j);
                  at(dw, f, c, i, j) += g * at(x, n, channel, v, u);
                }
            at(y, n, f, oy, ox) = sum;
          }
  }
};

// Largest difference, relative to the largest magnitude.
double distance(const Tensor& got, const Tensor& expected) {
  EXPECT_EQ(got.shape(), expected.shape());
  const std::vector<double> a = got.to_doubles(), b = expected.to_doubles();
  double largest = 0, size = 1e-30;
  for (std::size_t i = 0; i < b.size(); ++i) {
    largest = std::max(largest, std::isnan(a[i]) ? HUGE_VAL : std::abs(a[i] - b[i]));
    size = std::max(size, std::abs(b[i]));
  }
  return largest / size;
}

std::vector<Case> cases() {
  std::vector<Case> list;
  const auto add = [&](Shape x, Shape w, Conv2dOptions o) { list.push_back({x, w, o}); };
  add({2, 3, 7, 9}, {4, 3, 3, 3}, {});
  add({1, 1, 1, 1}, {1, 1, 1, 1}, {});
  add({2, 3, 8, 8}, {6, 3, 5, 5}, {.padding = {2, 2}});
  add({3, 4, 9, 7}, {5, 4, 3, 2}, {.stride = {2, 3}, .padding = {1, 0}});
  add({2, 4, 10, 11}, {6, 4, 3, 3}, {.stride = {1, 2}, .padding = {2, 1}, .dilation = {2, 3}});
  add({2, 6, 6, 5}, {4, 3, 3, 3}, {.padding = {1, 1}, .groups = 2});
  add({2, 8, 6, 6}, {8, 1, 3, 3}, {.padding = {1, 1}, .groups = 8});
  add({2, 16, 8, 8}, {16, 16, 3, 3}, {.padding = {1, 1}});
  add({2, 16, 9, 9}, {32, 16, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}});
  add({2, 16, 8, 8}, {32, 16, 1, 1}, {.stride = {2, 2}});
  add({2, 32, 8, 8}, {64, 32, 3, 3}, {.padding = {1, 1}});
  add({2, 3, 32, 32}, {6, 3, 5, 5}, {});
  add({3, 6, 14, 14}, {16, 6, 5, 5}, {});
  add({3, 16, 5, 9}, {48, 16, 3, 3}, {.padding = {2, 0}});
  add({5, 48, 3, 3}, {16, 48, 3, 3}, {.padding = {1, 1}});
  add({9, 32, 4, 4}, {32, 32, 3, 3}, {.padding = {1, 1}});
  add({1, 16, 37, 6}, {32, 16, 3, 3}, {});
  add({2, 17, 5, 6}, {19, 17, 2, 3}, {.padding = {1, 2}});
  add({2, 32, 7, 7}, {32, 8, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}, .groups = 4});
  return list;
}

std::vector<ConvAlgorithm> algorithms() {
  if (current_rank().device.is_cuda())
    return {ConvAlgorithm::automatic, ConvAlgorithm::reference, ConvAlgorithm::direct};
  std::vector<ConvAlgorithm> list{ConvAlgorithm::automatic, ConvAlgorithm::reference,
                                  ConvAlgorithm::direct, ConvAlgorithm::pixels,
                                  ConvAlgorithm::winograd};
#if SG_ONEDNN
  list.push_back(ConvAlgorithm::onednn);
#endif
  return list;
}

bool supports(ConvAlgorithm algorithm, const Case& c) {
  const Conv2dOptions& o = c.options;
  if (current_rank().device.is_cuda()) return true;
  if (algorithm == ConvAlgorithm::direct) return o.stride[1] <= 2;
  if (algorithm == ConvAlgorithm::pixels) return o.stride[1] == 1 && o.groups == 1;
  if (algorithm != ConvAlgorithm::winograd) return true;
  return c.weight[2] == 3 && c.weight[3] == 3 &&
         o.stride[0] * o.stride[1] * o.dilation[0] * o.dilation[1] == 1 && o.groups == 1 &&
         c.weight[0] % 16 == 0 && c.weight[1] % 16 == 0;
}

void expect_reference_is_the_definition(std::size_t every) {
  const std::vector<Case> all = cases();
  for (std::size_t i = 0; i < all.size(); i += every) {
    const Case& c = all[i];
    SCOPED_TRACE(describe(c));
    const Tensor x = random(c.x, 1), w = random(c.weight, 2), b = random({c.weight[0]}, 3);
    const Tensor dy = random(ops::conv2d_shape(c.x, c.weight, c.options), 4);
    const Naive naive(x, w, b, dy, c.options);
    EXPECT_LT(distance(ops::conv2d(x, w, b, c.options), naive.y), 1e-13);
    const Tensor dw = Tensor::empty(c.weight, DType::f64),
                 db = Tensor::empty({c.weight[0]}, DType::f64);
    const Tensor dx = ops::conv2d_backward(dy, {}, x, w, c.x, c.weight, c.options, {true, dw, db});
    EXPECT_LT(distance(dx, naive.dx), 1e-13);
    EXPECT_LT(distance(dw, naive.dw), 1e-13);
    EXPECT_LT(distance(db, naive.db), 1e-13);
  }
}

TEST(Conv2d, ReferenceIsTheDefinition) { expect_reference_is_the_definition(7); }
TEST(SlowConv2d, ReferenceIsTheDefinition) { expect_reference_is_the_definition(1); }

TEST(Conv2d, EveryAlgorithmAgreesWithTheReference) {
  for (const Case& c : cases()) {
    const Tensor x = random(c.x, 1), w = random(c.weight, 2), b = random({c.weight[0]}, 3);
    const Tensor dy = random(ops::conv2d_shape(c.x, c.weight, c.options), 4);
    const Tensor y = ops::conv2d(x, w, b, c.options);
    const Tensor dw = Tensor::empty(c.weight, DType::f64),
                 db = Tensor::empty({c.weight[0]}, DType::f64);
    const Tensor dx = ops::conv2d_backward(dy, {}, x, w, c.x, c.weight, c.options, {true, dw, db});
    for (const ConvAlgorithm algorithm : algorithms()) {
      if (!supports(algorithm, c)) continue;
      for (const bool last : {false, true}) {
        SCOPED_TRACE(describe(c) + " " + name_of(algorithm) + (last ? " channels-last" : ""));
        const auto f32 = [&](const Tensor& t) {
          const Tensor plain = t.to(DType::f32);
          return last && t.dim_count() == 4 ? plain.channels_last() : plain;
        };
        const Tensor fw = w.to(DType::f32), fb = b.to(DType::f32);
        EXPECT_LT(distance(ops::conv2d(f32(x), fw, fb, c.options, algorithm), y), 2e-6);
        const Tensor fdw = Tensor::empty(c.weight), fdb = Tensor::empty({c.weight[0]});
        const Tensor fdx = ops::conv2d_backward(f32(dy), {}, f32(x), fw, c.x, c.weight, c.options,
                                                {true, fdw, fdb}, algorithm);
        EXPECT_LT(distance(fdx, dx), 2e-6);
        EXPECT_LT(distance(fdw, dw), 2e-6);
        EXPECT_LT(distance(fdb, db), 2e-6);
      }
    }
  }
}

// 16-bit values are computed in f32 and rounded once, whatever the algorithm.
TEST(Conv2d, HalvesAreRoundedOnce) {
  for (const Case& c : cases())
    for (const ConvAlgorithm algorithm : algorithms()) {
      if (!supports(algorithm, c)) continue;
      SCOPED_TRACE(describe(c) + " " + name_of(algorithm));
      Conv2dOptions o = c.options;
      o.relu = true;
      const DType dtype = c.x[1] % 2 == 0 ? DType::bf16 : DType::f16;
      const Tensor x = random(c.x, 1).to(dtype), w = random(c.weight, 2).to(dtype),
                   b = random({c.weight[0]}, 3).to(dtype);
      const auto f32 = [](const Tensor& t) { return t.to(DType::f32); };
      const Tensor y = ops::conv2d(x, w, b, o, algorithm), dy = random(y.shape(), 4).to(dtype);
      const Tensor wide = ops::conv2d(f32(x), f32(w), f32(b), o, algorithm);
      const double ulp = dtype == DType::bf16 ? 0x1p-8 : 0x1p-11;
      test::expect_close(y, wide, 1.1 * ulp, 1e-5);
      const auto grads = [&](DType of) {
        return ops::Conv2dGrads{true, Tensor::empty(c.weight, of),
                                Tensor::empty({c.weight[0]}, of)};
      };
      const ops::Conv2dGrads got = grads(dtype), expected = grads(DType::f32);
      const Tensor dx = ops::conv2d_backward(dy, y, x, w, c.x, c.weight, o, got, algorithm);
      const Tensor wide_dx = ops::conv2d_backward(f32(dy), f32(y), f32(x), f32(w), c.x, c.weight, o,
                                                  expected, algorithm);
      test::expect_close(dx, wide_dx, 1.1 * ulp, 1e-5);
      test::expect_close(got.weight, expected.weight, 1.1 * ulp, 1e-4);
      test::expect_close(got.bias, expected.bias, 1.1 * ulp, 1e-4);
      const ops::Conv2dGrads wide_places = grads(DType::f32);  // of 16-bit gradients
      ops::conv2d_backward(dy, y, x, w, c.x, c.weight, o, wide_places, algorithm);
      test::expect_close(wide_places.weight, expected.weight, 1.1 * ulp, 1e-4);
      test::expect_close(wide_places.bias, expected.bias, 1.1 * ulp, 1e-4);
    }
}

// Pooling and batch norm of packs of 16-bit values, in both layouts: as f32, rounded once.
TEST(ImageOps, HalvesAreRoundedOnce) {
  const auto f32 = [](const Tensor& t) { return t.to(DType::f32); };
  for (const DType dtype : {DType::bf16, DType::f16})
    for (const std::int64_t channels : {3, 16, 24})
      for (const bool last : {false, true}) {
        SCOPED_TRACE(fmt::format("{} channels {} {}", channels, last, name_of(dtype)));
        const double ulp = dtype == DType::bf16 ? 0x1p-8 : 0x1p-11;
        const auto image = [&](const Shape& shape, unsigned seed) {
          const Tensor t = random(shape, seed).to(dtype);
          return last ? t.channels_last() : t;
        };
        const Tensor x = image({3, channels, 8, 12}, 1);
        for (const Pool2dOptions& o :
             {Pool2dOptions{}, Pool2dOptions{.kernel = {3, 2}, .stride = {2, 1}, .padding = {1, 0}},
              Pool2dOptions{.kernel = {8, 12}}}) {
          const ops::MaxPool top = ops::max_pool2d(x, o);
          test::expect_same_bits(f32(top.output), ops::max_pool2d(f32(x), o).output);
          const Tensor dy = image(top.output.shape(), 2);
          test::expect_close(ops::max_pool2d_backward(dy, top.index, x.shape(), o),
                             ops::max_pool2d_backward(f32(dy), top.index, x.shape(), o), ulp, 0);
          test::expect_close(ops::avg_pool2d(x, o), ops::avg_pool2d(f32(x), o), 1.1 * ulp, 1e-6);
          test::expect_close(ops::avg_pool2d_backward(dy, x.shape(), o),
                             ops::avg_pool2d_backward(f32(dy), x.shape(), o), 1.1 * ulp, 1e-6);
        }
        const Tensor dy = image(x.shape(), 3), w = random({channels}, 4).to(dtype),
                     b = random({channels}, 5).to(dtype);
        const auto empty = [&](DType of) { return Tensor::empty({channels}, of); };
        const Tensor mean = Tensor::zeros({channels}), var = Tensor::full({channels}, 1);
        const ops::BatchNorm got =
            ops::batch_norm_training(x, w, b, mean, var, 0.1, 1e-5, true, true);
        const ops::BatchNorm wide =
            ops::batch_norm_training(f32(x), f32(w), f32(b), {}, {}, 0.1, 1e-5, true, true);
        test::expect_close(got.output, wide.output, 1.1 * ulp, 1e-6);
        test::expect_close(mean, ops::mul(wide.mean, 0.1), 1e-5, 1e-6);
        const Tensor dw = empty(dtype), db = empty(dtype), wide_dw = empty(DType::f32),
                     wide_db = empty(DType::f32);
        const Tensor dx =
            ops::batch_norm_backward(dy, x, w, b, got.mean, got.invstd, true, true, true, dw, db);
        const Tensor wide_dx =
            ops::batch_norm_backward(f32(dy), f32(x), f32(w), f32(b), got.mean, got.invstd, true,
                                     true, true, wide_dw, wide_db);
        test::expect_close(dx, wide_dx, 1.1 * ulp, 1e-5);
        test::expect_close(dw, wide_dw, 1.1 * ulp, 1e-4);
        test::expect_close(db, wide_db, 1.1 * ulp, 1e-4);
      }
}

// More patches than a GPU's scratch memory holds at once: 267 MB, of which an image has 89.
TEST(Conv2d, ChunksOfPatchesAddUp) {
  if (!current_rank().device.is_cuda()) GTEST_SKIP() << "about the GPU's scratch memory";
  const Shape x_shape{3, 1, 157, 157}, w_shape{1, 1, 25, 25};
  const Tensor x = random(x_shape, 1), w = random(w_shape, 2), dy = random({3, 1, 133, 133}, 3);
  const auto run = [&](ConvAlgorithm algorithm) {
    const Tensor dw = Tensor::empty(w_shape, DType::f64);
    Ledger& ledger = current_rank().ledger();
    ledger.reset_peaks();
    const std::int64_t before = ledger.live(Kind::buffers);
    std::vector<Tensor> all{
        ops::conv2d(x, w, {}, {}, algorithm),
        ops::conv2d_backward(dy, {}, x, w, x_shape, w_shape, {}, {true, dw, {}}, algorithm), dw};
    EXPECT_LT(ledger.peak(Kind::buffers) - before, 260 << 20);
    return all;
  };
  const std::vector<Tensor> chunks = run(ConvAlgorithm::reference),
                            direct = run(ConvAlgorithm::direct);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_LT(distance(chunks[i], direct[i]), 1e-13);
}

// The fused op against its parts, in double: outputs and, where no maximum is a tie or near one,
// all gradients.
TEST(Conv2d, FusedReluAndMaxPoolAgreeWithTheirParts) {
  if (current_rank().device.is_cuda()) GTEST_SKIP() << "about the CPU's fused kernels";
  const Pool2dOptions pool{.kernel = {2, 2}};
  for (const Case& c : cases()) {
    const Shape full = ops::conv2d_shape(c.x, c.weight, c.options);
    if (full[2] < 2 || full[3] < 2) continue;
    if (!ops::conv2d_relu_max_pool2d_is_fused(c.x, c.weight, DType::f32, c.options, pool)) continue;
    const Tensor x = random(c.x, 1), w = random(c.weight, 2), b = random({c.weight[0]}, 3);
    Conv2dOptions relu = c.options;
    relu.relu = true;
    const Tensor y = ops::conv2d(x, w, b, relu);
    const ops::MaxPool parts = ops::max_pool2d(y, pool);
    const Tensor dy = random(parts.output.shape(), 4);
    const Tensor dw = Tensor::empty(c.weight, DType::f64),
                 db = Tensor::empty({c.weight[0]}, DType::f64);
    const Tensor dx = ops::conv2d_backward(ops::max_pool2d_backward(dy, parts.index, full, pool), y,
                                           x, w, c.x, c.weight, relu, {true, dw, db});
    for (const bool last : {false, true}) {
      SCOPED_TRACE(describe(c) + (last ? " channels-last" : ""));
      const auto f32 = [&](const Tensor& t) {
        const Tensor plain = t.to(DType::f32);
        return last && t.dim_count() == 4 ? plain.channels_last() : plain;
      };
      const Tensor fx = f32(x), fw = w.to(DType::f32);
      const ops::MaxPool fused =
          ops::conv2d_relu_max_pool2d(fx, fw, b.to(DType::f32), c.options, pool);
      EXPECT_LT(distance(fused.output, parts.output), 2e-6);
      const std::vector<std::uint8_t> got = fused.index.to_vector<std::uint8_t>();
      const std::vector<std::uint8_t> expected = parts.index.to_vector<std::uint8_t>();
      const std::vector<double> values = parts.output.to_doubles();
      for (std::size_t i = 0; i < got.size(); ++i) {
        const int want = values[i] > 0 ? expected[i] : 4;
        ASSERT_EQ(got[i], want) << "window " << i;
      }
      const Tensor fdw = Tensor::empty(c.weight), fdb = Tensor::empty({c.weight[0]});
      const Tensor fdx = ops::conv2d_relu_max_pool2d_backward(
          f32(dy), fused.index, fx, fw, c.x, c.weight, c.options, pool, {true, fdw, fdb});
      EXPECT_LT(distance(fdx, dx), 2e-6);
      EXPECT_LT(distance(fdw, dw), 2e-6);
      EXPECT_LT(distance(fdb, db), 2e-6);
    }
  }
}

}  // namespace
}  // namespace sg
