// Reductions, rows, losses, embedding and dropout on a GPU against the CPU's: every dtype, every
// layout, and sizes that take each way through the kernels.
#include <gtest/gtest.h>

#include <cmath>

#include "core/cuda/cuda.h"
#include "core/ops.h"
#include "tests/support/testing.h"

namespace sg {
namespace {

using test::error_of;
using test::expect_close;
using test::expect_same_bits;
using test::kInfinity;
using test::kNan;

constexpr Device kGpu = cuda_device(0);

class GpuRows : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda::device_count() == 0) GTEST_SKIP() << "no GPU: " << cuda::why_none();
  }
};

constexpr DType kFloats[] = {DType::f64, DType::f32, DType::bf16, DType::f16};

double precision(DType dtype) {
  return dtype == DType::f64   ? 1e-13
         : dtype == DType::f32 ? 2e-6
         : dtype == DType::f16 ? 1e-3
                               : 8e-3;
}

Tensor noise(const Shape& shape, DType dtype, std::uint64_t seed) {
  return test::random(shape, DType::f64, seed).to(kCpu).to(dtype);
}

// The layouts of a tensor, and one that no 16 bytes are aligned in.
std::vector<Tensor> places(const Tensor& x) {
  std::vector<Tensor> all = test::layouts(x);
  Shape wide = x.shape();
  ++wide[0];
  const Tensor block = Tensor::empty({numel(wide) + 1}, x.dtype(), x.device());
  const Tensor view = block.slice(0, 1, x.numel()).reshape(x.shape());
  view.copy_from(x);
  all.push_back(view);
  return all;
}

// f of a few tensors on the GPU is as on the CPU, wherever the first of them lies.
template <class F>
void expect_as_on_cpu(const F& f, const Tensor& x, double tolerance, const Tensor& second = {}) {
  const Tensor expected = f(x, second);
  for (const Tensor& p : places(x.to(kGpu))) {
    SCOPED_TRACE(fmt::format("{} by {}", describe(p), p.strides()));
    const Tensor found = f(p, second.defined() ? second.to(kGpu) : second);
    ASSERT_EQ(found.dtype(), expected.dtype());
    ASSERT_TRUE(found.is_cuda());
    expect_close(found, expected, tolerance, tolerance);
    if (testing::Test::HasFailure()) return;
  }
}

TEST_F(GpuRows, ReductionsOfEveryShapeAndLayout) {
  const Shape shapes[] = {{3, 4, 5, 2}, {2, 8, 3, 40}, {5, 70, 3}, {130, 96},
                          {3, 33'000},  {9000, 8},     {4000, 3},  {2, 300, 16}};
  for (const Shape& shape : shapes)
    for (const DType dtype : kFloats)
      for (int mask = 1; mask < 1 << shape.size(); ++mask) {
        Dims dims;
        for (int d = 0; d < shape.size(); ++d)
          if ((mask >> d & 1) != 0) dims.push_back(d);
        SCOPED_TRACE(fmt::format("over {}", dims));
        const Tensor x = noise(shape, dtype, 3);
        const double off = precision(dtype);
        expect_as_on_cpu([&](auto& t, auto&) { return ops::mean(t, dims, true); }, x, off);
        expect_as_on_cpu([&](auto& t, auto&) { return ops::amax(t, dims); }, x, 0);
        expect_as_on_cpu([&](auto& t, auto&) { return ops::amin(t, dims); }, x, 0);
        expect_as_on_cpu([&](auto& t, auto&) { return ops::var(t, dims, 0); }, x, off);
        if (testing::Test::HasFailure()) return;
      }
}

TEST_F(GpuRows, ASumsBitsDependOnItsShapeAlone) {
  for (const DType dtype : kFloats)
    for (const Dims& dims : {Dims{0}, Dims{1}, Dims{0, 1}}) {
      const Tensor x = noise({1000, 48}, dtype, 4);
      const std::vector<Tensor> all = places(x.to(kGpu));
      const Tensor first = ops::sum(all.front(), dims);
      expect_same_bits(ops::sum(all.front(), dims), first);
      expect_same_bits(ops::sum(all.back(), dims), first);
    }
}

TEST_F(GpuRows, BroadcastAndNotANumber) {
  const Tensor x = noise({3, 1, 5}, DType::f32, 5).to(kGpu).expand({3, 4000, 5});
  expect_close(ops::sum_to(x, {3, 1, 5}), ops::mul(x.slice(1, 0, 1), 4000), 1e-6, 1e-6);
  expect_close(ops::sum(x, {0, 2}), ops::sum(x.to(kCpu), {0, 2}), 1e-6, 1e-6);
  for (const std::int64_t n : {7, 300, 40'000}) {
    const Tensor y = Tensor::zeros({2, n}, DType::f32, kGpu);
    y.slice(1, n / 2, 1).fill(kNan);
    for (const Tensor& t : {y, y.transpose(0, 1).contiguous().transpose(0, 1)}) {
      EXPECT_TRUE(std::isnan(ops::amax(t, {1}).to_doubles()[1]));
      EXPECT_TRUE(std::isnan(ops::amin(t).item()));
      EXPECT_EQ(ops::argmax(t, 1).to_doubles()[0], static_cast<double>(n / 2));
    }
    y.fill(-kInfinity);
    EXPECT_EQ(ops::argmax(y, 1).to_doubles()[1], 0);
  }
}

TEST_F(GpuRows, Integers) {
  for (const Shape& shape : {Shape{3, 5, 7}, Shape{40'000, 3}, Shape{2, 3, 5000}})
    for (const DType dtype : {DType::i64, DType::i32, DType::u8}) {
      const Tensor x = ops::add(ops::mul(noise(shape, DType::f32, 6), 60), 122).to(dtype);
      for (const Dims& dims : {Dims{}, Dims{0}, Dims{1}, Dims{0, shape.size() - 1}}) {
        if (dims.size() == 2 && dims[0] == dims[1]) continue;
        expect_as_on_cpu([&](auto& t, auto&) { return ops::sum(t, dims); }, x, 0);
        expect_as_on_cpu([&](auto& t, auto&) { return ops::amax(t, dims); }, x, 0);
        expect_as_on_cpu([&](auto& t, auto&) { return ops::amin(t, dims); }, x, 0);
      }
      for (int d = 0; d < shape.size(); ++d)
        expect_as_on_cpu([&](auto& t, auto&) { return ops::argmax(t, d); }, x, 0);
    }
  const std::vector<std::int64_t> ends{INT64_MAX, INT64_MIN, INT64_MAX - 1};
  const Tensor x = Tensor::from(ends, {3}).to(kGpu);
  EXPECT_EQ(ops::amax(x).to_vector<std::int64_t>()[0], INT64_MAX);
  EXPECT_EQ(ops::amin(x).to_vector<std::int64_t>()[0], INT64_MIN);
}

TEST_F(GpuRows, SoftmaxAndLayerNorm) {
  for (const Shape& shape : {Shape{7, 3}, Shape{5, 100}, Shape{3, 2, 1500}, Shape{2, 9, 4, 6}})
    for (const DType dtype : kFloats) {
      const double off = 2 * precision(dtype);
      const Tensor x = noise(shape, dtype, 7), g = noise(shape, dtype, 8);
      for (const int dim : {1, shape.size() - 1}) {
        const Tensor y = ops::softmax(x, dim), log_y = ops::log_softmax(x, dim);
        expect_as_on_cpu([&](auto& t, auto&) { return ops::softmax(t, dim); }, x, off);
        expect_as_on_cpu([&](auto& t, auto&) { return ops::log_softmax(t, dim); }, x, off);
        expect_as_on_cpu([&](auto& t, auto& u) { return ops::softmax_grad(t, u, dim); }, y, off, g);
        expect_as_on_cpu([&](auto& t, auto& u) { return ops::log_softmax_grad(t, u, dim); }, log_y,
                         4 * off, g);
      }
      const Shape normalized{shape.back()};
      const Tensor w = noise(normalized, dtype, 9);
      for (const bool with : {true, false}) {
        const auto norm = [&](const Tensor& t, const Tensor& weight) {
          return ops::layer_norm(t, normalized, with ? weight : Tensor(), with ? weight : Tensor(),
                                 1e-3);
        };
        expect_as_on_cpu([&](auto& t, auto& u) { return norm(t, u).y; }, x, 2 * off, w);
        expect_as_on_cpu([&](auto& t, auto& u) { return norm(t, u).rstd; }, x, 2 * off, w);
        expect_as_on_cpu(
            [&](auto& t, auto& u) {
              const ops::LayerNorm n = norm(t, u);
              return ops::layer_norm_grad_x(t, with ? u : Tensor(), n.mean, n.rstd,
                                            g.to(t.device()), normalized);
            },
            x, 40 * off, w);
      }
    }
}

TEST_F(GpuRows, LayerNormParameters) {
  for (const Shape& shape : {Shape{1, 5}, Shape{3, 37, 8}, Shape{9000, 16}})
    for (const DType dtype : kFloats) {
      const Tensor x = noise(shape, dtype, 10), g = noise(shape, dtype, 11);
      const Shape normalized{shape.back()};
      for (const bool of_weight : {true, false})
        expect_as_on_cpu(
            [&](auto& t, auto& u) {
              const ops::LayerNorm n = ops::layer_norm(t, normalized, {}, {}, 1e-3);
              const Tensor gw = Tensor::empty(normalized, dtype, t.device()),
                           gb = Tensor::empty(normalized, dtype, t.device());
              ops::layer_norm_grad_affine(t, n.mean, n.rstd, u, normalized,
                                          of_weight ? gw : Tensor(), of_weight ? Tensor() : gb);
              return of_weight ? gw : gb;
            },
            x, 30 * precision(dtype), g);
    }
}

TEST_F(GpuRows, CrossEntropy) {
  for (const Shape& shape : {Shape{6, 10}, Shape{40'000, 3}, Shape{5, 700}, Shape{2, 4, 3, 5}})
    for (const DType dtype : kFloats) {
      Shape rows{shape[0]};
      for (int i = 2; i < shape.size(); ++i) rows.push_back(shape[i]);
      std::vector<std::int64_t> hard(static_cast<std::size_t>(numel(rows)));
      for (std::size_t i = 0; i < hard.size(); ++i)
        hard[i] = i % 5 == 3 ? -100 : static_cast<std::int64_t>(i) % shape[1];
      const Tensor x = noise(shape, dtype, 12);
      for (const Tensor& targets : {Tensor::from(hard, rows).to(kCpu),
                                    ops::softmax(noise(shape, dtype, 13), 1).contiguous()})
        for (const double smoothing : {0.0, 0.1})
          for (const auto reduction : {Reduction::none, Reduction::sum, Reduction::mean}) {
            const CrossEntropyOptions options{reduction, -100, smoothing};
            const double off = 4 * precision(dtype);
            expect_as_on_cpu(
                [&](auto& t, auto& u) { return ops::cross_entropy(t, u, options).loss; }, x, off,
                targets);
            const Tensor grad = noise(reduction == Reduction::none ? rows : Shape{}, dtype, 14);
            expect_as_on_cpu(
                [&](auto& t, auto& u) {
                  const Tensor stats = ops::cross_entropy(t, u, options).stats;
                  return ops::cross_entropy_grad(t, stats, u, options, grad.to(t.device()));
                },
                x, off, targets);
            if (testing::Test::HasFailure()) return;
          }
    }
}

// Rows that were used thousands of times are summed in pieces, others one by one.
TEST_F(GpuRows, EmbeddingGradients) {
  for (const std::int64_t rows : {1, 3, 50'000})
    for (const std::int64_t dim : {1, 5, 8})
      for (const DType dtype : kFloats) {
        constexpr std::int64_t count = 7000;
        std::vector<std::int64_t> index(count);
        for (std::size_t i = 0; i < index.size(); ++i)
          index[i] = static_cast<std::int64_t>(i * i) % (3 * rows) % rows;
        const Tensor indices = Tensor::from(index, {70, 100}).to(kCpu),
                     grad = noise({70, 100, dim}, dtype, 15);
        const auto sums = [&](const Tensor& g, const Tensor& at) {
          const Tensor gw = Tensor::empty({rows, dim}, dtype, g.device());
          gw.fill(9);
          ops::embedding_grad(at, g, 2, gw);
          return gw;
        };
        SCOPED_TRACE(fmt::format("{} rows of {} {}", rows, dim, name_of(dtype)));
        expect_as_on_cpu([&](auto& g, auto& at) { return sums(g, at); }, grad,
                         20 * precision(dtype), indices);
        const Tensor g = grad.to(kGpu), at = indices.to(kGpu);
        expect_same_bits(sums(g, at), sums(g, at));
        expect_as_on_cpu([&](auto& w, auto& i) { return ops::embedding(i, w); },
                         noise({rows, dim}, dtype, 16), 0, indices);
        if (testing::Test::HasFailure()) return;
      }
}

// Errors come when somebody waits, once, and leave the device usable.
TEST_F(GpuRows, IndicesOutsideTheirRange) {
  const Tensor weight = noise({5, 3}, DType::f32, 17).to(kGpu);
  const Tensor bad = Tensor::from(std::vector<std::int64_t>{4, -1}, {2}).to(kGpu);
  const Tensor y = ops::embedding(bad, weight);
  EXPECT_EQ(error_of([&] { y.to_doubles(); }),
            "[embedding] index -1 at position 1 is outside [0, 5)");
  EXPECT_EQ(error_of([&] { y.to_doubles(); }), "no error");
  const Tensor target = Tensor::from(std::vector<std::int64_t>{1, 4}, {2}).to(kGpu);
  const auto loss = ops::cross_entropy(weight.slice(0, 0, 2), target, {});
  EXPECT_EQ(error_of([&] { loss.loss.item(); }),
            "[cross_entropy] target 4 at index 1 is outside [0, 3)");
  EXPECT_EQ(ops::sum(Tensor::zeros({3}, DType::f32, kGpu)).item(), 0);
  EXPECT_EQ(error_of([&] { ops::embedding(bad.to(kCpu), weight); }),
            "[embedding] indices are on cpu, the weight on cuda:0");
}

TEST_F(GpuRows, DropoutHasTheMasksOfTheCpu) {
  const ops::DropoutKey key{1, 2, {3, 40}};
  for (const Shape& shape : {Shape{}, Shape{7}, Shape{3, 5}, Shape{2, 3, 4, 5}, Shape{9, 64}})
    for (const DType dtype : kFloats) {
      const Tensor x = noise(shape, dtype, 18);
      const auto f = [&](const Tensor& t, const Tensor&) { return ops::dropout(t, 0.4, key); };
      if (shape.size() == 0)
        expect_close(f(x.to(kGpu), {}), f(x, {}), 8e-3, 0);
      else
        expect_as_on_cpu(f, x, size_of(dtype) == 2 ? 8e-3 : 0);
    }
}

}  // namespace
}  // namespace sg
