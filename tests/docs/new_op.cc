// The elementwise op of docs/extending.md, in the list: test.cmake builds what the list drives with
// the page's struct and the page's line.
#include <gtest/gtest.h>

#include <cmath>

#include "autograd/elementwise.h"
#include "autograd/gradcheck.h"
#include "nn/nn.h"
#include "optim/adam.h"
#include "tests/docs/training.h"

namespace sg {
namespace {

static_assert(ew::index_of<ew::Mish, ew::Unary> == ew::Unary::count - 1);

TEST(NewOp, ValuesAreThoseOfPyTorch) {
  const Tensor x = Tensor::from<double>({1.0, -2.0}, {2});
  const std::vector<double> y = ops::unary<ew::Mish>(x).to_doubles();
  EXPECT_NEAR(y[0], 0.8650983882673103, 1e-15);  // torch.nn.functional.mish
  EXPECT_NEAR(y[1], -0.2525014826957088, 1e-15);
  // f32, in vectors and in what they leave; bf16, computed in f32; a strided view.
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor wide = Tensor::from<double>(std::vector<double>(37, -2.0), {37});
    const double off = dtype == DType::f32 ? 1e-6 : 1e-3;
    for (const double v : ops::unary<ew::Mish>(wide.to(dtype)).to_doubles())
      EXPECT_NEAR(v, y[1], off);
  }
  const Tensor column = Tensor::from<double>({1.0, -2.0, 1.0, -2.0}, {2, 2}).select(1, 1);
  EXPECT_EQ(ops::unary<ew::Mish>(column).to_doubles(), std::vector<double>({y[1], y[1]}));
}

// Finite differences in double.
TEST(NewOp, DerivativeIsRight) {
  gradcheck([](std::span<const Var> x) { return elementwise<ew::Mish>(x[0]); },
            {Var(Tensor::from<double>({-5.0, -1.0, -0.3, 0.0, 0.4, 2.0, 6.0}, {7}), true)});
}

struct Net : nn::Module {
  nn::Linear in = child("in", nn::Linear(12, 40));
  nn::Linear out = child("out", nn::Linear(40, 4));
  Var forward(const Var& x) override { return out(elementwise<ew::Mish>(in(x))); }
};

TEST(NewOp, TrainsUnderEveryPlan) {
  docs::expect_trains_under_every_plan([](Rank& rank, const std::string& plan, auto after_step) {
    auto engine = dist::initialize(Net(), optim::adam({.lr = 1e-2}), {.plan = plan});
    Tensor x = Tensor::empty({4, 12}), labels = Tensor::empty({4}, DType::i64);
    for (int i = 0; i < 4 * 12; ++i)
      x.data<float>()[i] = static_cast<float>((i * 7 + rank.index * 13) % 19) / 19.0f;
    for (int i = 0; i < 4; ++i) labels.data<std::int64_t>()[i] = (i + rank.index) % 4;
    for (int step = 0; step < 40; ++step) {
      engine->backward(nn::cross_entropy((*engine)(x), labels));
      engine->step();
      after_step(*engine);
    }
    return engine;
  });
}

}  // namespace
}  // namespace sg
