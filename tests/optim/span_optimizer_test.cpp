#include "optim/span_optimizer.h"

#include <cmath>

#include "core/rank.h"
#include "optim/clip.h"
#include "tests/optim/support.h"

namespace sg::optim {
namespace {

Tensor vector_of(std::vector<float> values) {
  const auto n = static_cast<std::int64_t>(values.size());
  return Tensor::from(values, {n});
}

TEST(SpanOptimizer, GroupsStatesAndSteps) {
  const OptimizerPtr momentum = sgd({.lr = 0.5, .momentum = 0.5, .weight_decay = 1});
  const Tensor w = vector_of({2, 4}), b = vector_of({1});
  SpanOptimizer optimizer(momentum, {{"w", w, momentum->defaults()},
                                     {"b", b, momentum->group({.lr = 1, .weight_decay = 0})}});
  optimizer.step(std::vector<Tensor>{vector_of({2, 2}), vector_of({4})});
  EXPECT_EQ(w.to_vector<float>(), (std::vector<float>{0, 1}));
  EXPECT_EQ(b.to_vector<float>(), std::vector<float>{-3});
  EXPECT_EQ(optimizer.state("w", "momentum_buffer").to_vector<float>(), (std::vector<float>{4, 6}));
  // b has no gradient: it stays as it is, and its second step is still to come.
  optimizer.step(std::vector<Tensor>{vector_of({0, 0}), Tensor()}, {.lr_factor = 2});
  EXPECT_EQ(w.to_vector<float>(), (std::vector<float>{-2, -3}));
  EXPECT_EQ(b.to_vector<float>(), std::vector<float>{-3});
  EXPECT_EQ(optimizer.steps("w"), 2);
  EXPECT_EQ(optimizer.steps("b"), 1);
  optimizer.step(std::vector<Tensor>{vector_of({9, 9}), vector_of({9})}, {.skip = true});
  EXPECT_EQ(optimizer.steps("w"), 2);
  EXPECT_EQ(w.to_vector<float>(), (std::vector<float>{-2, -3}));
}

TEST(SpanOptimizer, BiasCorrectionGoesOnAfterSetSteps) {
  const OptimizerPtr a = adam({.lr = 0.1});
  const Tensor x = vector_of({1, 2, 3}), y = vector_of({1, 2, 3}), grad = vector_of({1, -2, 0.5});
  SpanOptimizer first(a, {{"p", x, a->defaults()}});
  for (int i = 0; i < 3; ++i) first.step(std::vector<Tensor>{grad});
  SpanOptimizer second(a, {{"p", y, a->defaults()}});
  y.copy_from(x);
  for (const char* state : {"exp_avg", "exp_avg_sq"})
    second.state("p", state).copy_from(first.state("p", state));
  second.set_steps("p", 3);
  first.step(std::vector<Tensor>{grad});
  second.step(std::vector<Tensor>{grad});
  EXPECT_EQ(x.to_vector<float>(), y.to_vector<float>());
}

TEST(SpanOptimizer, DoublesAndFloatsTogether) {
  const OptimizerPtr s = sgd({.lr = 1});
  const Tensor x = Tensor::zeros({3}, DType::f64), y = Tensor::zeros({2}, DType::f32);
  SpanOptimizer optimizer(s, {{"x", x, s->defaults()}, {"y", y, s->defaults()}});
  const std::vector<Tensor> grads{Tensor::full({3}, 2, DType::f64),
                                  Tensor::full({2}, std::sqrt(2), DType::f32)};
  const double norm = optimizer.grad_norm(grads);
  EXPECT_NEAR(norm, 4, 1e-6);
  EXPECT_EQ(optimizer.grad_norm(grads, 2), norm / 2);
  optimizer.step(grads, {.clip_scale = clip_coefficient(norm, 1)});
  EXPECT_NEAR(x.to_doubles()[1], -0.5, 1e-6);
  EXPECT_NEAR(y.to_doubles()[1], -std::sqrt(2) / 4, 1e-6);
}

TEST(SpanOptimizer, StatesAreBooked) {
  Rank rank(0, 1, 1, 0);
  const RankScope scope(rank);
  const OptimizerPtr a = adam();
  const Tensor x = Tensor::zeros({1000}), y = Tensor::zeros({10}, DType::f64, kMeta);
  {
    SpanOptimizer optimizer(a, {{"x", x, a->defaults()}, {"y", y, a->defaults()}});
    EXPECT_EQ(rank.ledger().live(Kind::optimizer), 2 * (4000 + 80));
    optimizer.step(
        std::vector<Tensor>{Tensor::zeros({1000}), Tensor::zeros({10}, DType::f64, kMeta)});
    EXPECT_EQ(optimizer.steps("y"), 1);
  }
  EXPECT_EQ(rank.ledger().live(Kind::optimizer), 0);
  EXPECT_EQ(rank.ledger().peak(Kind::optimizer), 2 * (4000 + 80));
}

TEST(SpanOptimizer, AnUpdateIsAChangeInPlace) {
  const OptimizerPtr s = sgd({.lr = 1});
  const Tensor x = Tensor::zeros({3});
  SpanOptimizer optimizer(s, {{"x", x, s->defaults()}});
  const auto before = x.storage()->version();
  optimizer.step(std::vector<Tensor>{Tensor::zeros({3})});
  EXPECT_GT(x.storage()->version(), before);
}

TEST(SpanOptimizer, StridedGradients) {
  const OptimizerPtr s = sgd({.lr = 1});
  const Tensor x = Tensor::zeros({2, 3});
  SpanOptimizer optimizer(s, {{"x", x, s->defaults()}});
  optimizer.step(std::vector<Tensor>{
      Tensor::from<float>(std::vector<float>{1, 2, 3, 4, 5, 6}, {3, 2}).transpose(0, 1)});
  EXPECT_EQ(x.to_vector<float>(), (std::vector<float>{-1, -3, -5, -2, -4, -6}));
}

TEST(SpanOptimizer, ParametersInBf16HaveStatesInF32) {
  const OptimizerPtr a = adamw({.lr = 0.1});
  const Tensor initial = Tensor::from<float>(std::vector<float>{1, -2, 3.5f}, {3});
  const Tensor grad = Tensor::from<float>(std::vector<float>{0.25f, -1.5f, 3}, {3});
  const auto train = [&](DType param, DType gradient) {
    const Tensor x = initial.clone().to(param);
    SpanOptimizer optimizer(a, {{"x", x, a->defaults()}});
    const Tensor g = grad.to(gradient);
    EXPECT_EQ(optimizer.grad_norm({&g, 1}), std::sqrt(0.0625 + 2.25 + 9));
    optimizer.step({&g, 1});
    EXPECT_EQ(optimizer.state("x", "exp_avg").dtype(), DType::f32);
    EXPECT_EQ(optimizer.state("x", "exp_avg").shape(), x.shape());
    return std::pair(x.to(DType::bf16).to_doubles(), optimizer.state("x", "exp_avg").to_doubles());
  };
  // After one step the f32 parameter, rounded, is the bf16 one.
  const auto expected = train(DType::f32, DType::f32);
  EXPECT_EQ(train(DType::bf16, DType::f32), expected);
  EXPECT_EQ(train(DType::bf16, DType::bf16), expected);
}

TEST(SpanOptimizer, Errors) {
  const OptimizerPtr a = adam();
  const Hyper h = a->defaults();
  const Tensor x = Tensor::zeros({2, 3});
  EXPECT_EQ(error_of([&] {
              SpanOptimizer(a, {{"x", Tensor(), h}});
            }),
            "[adam] parameter x has no value");
  EXPECT_EQ(error_of([&] {
              SpanOptimizer(a, {{"x", x, h}, {"x", x, h}});
            }),
            "[adam] two parameters are called x");
  EXPECT_EQ(
      error_of([&] {
        SpanOptimizer(a, {{"x", Tensor::zeros({2}, DType::f16), h}});
      }),
      "[adam] parameter x is f16 [2]; parameters are f32, f64 or bf16, so keep a master copy");
  EXPECT_EQ(error_of([&] {
              SpanOptimizer(a, {{"x", x.transpose(0, 1), h}});
            }),
            "[adam] parameter x (f32 [3, 2]) is not contiguous; it has strides [1, 3]");
  SpanOptimizer optimizer(a, {{"x", x, h}});
  EXPECT_EQ(error_of([&] { optimizer.step(std::vector<Tensor>{}); }),
            "[adam] 0 gradients for 1 parameters");
  EXPECT_EQ(error_of([&] {
              optimizer.step(std::vector<Tensor>{Tensor::zeros({3, 2})});
            }),
            "[adam] parameter x is f32 [2, 3] but its gradient is f32 [3, 2]");
  EXPECT_EQ(error_of([&] {
              optimizer.step(std::vector<Tensor>{Tensor::zeros({2, 3}, DType::bf16)});
            }),
            "[adam] parameter x is f32 [2, 3] but its gradient is bf16 [2, 3]");
  EXPECT_EQ(error_of([&] { optimizer.steps("z"); }), "[adam] has no parameter z");
  EXPECT_EQ(error_of([&] { optimizer.state("x", "momentum_buffer"); }),
            "[adam] has no state momentum_buffer; it has: exp_avg, exp_avg_sq");
}

}  // namespace
}  // namespace sg::optim
