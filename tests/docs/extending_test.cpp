// The examples of docs/extending.md that change no file of the library. The page quotes them from
// here, where they are checked and trained under every plan.
#include <gtest/gtest.h>

#include <cmath>

#include "autograd/gradcheck.h"
#include "autograd/node.h"
#include "autograd/ops.h"
#include "core/ops.h"
#include "data/loader.h"
#include "nn/nn.h"
#include "optim/elementwise.h"
#include "tests/docs/training.h"

namespace sg {
namespace {

/// Every row (the last dimension) divided by its Euclidean length.
Var normalize_rows(const Var& x) {
  const Tensor in = x.value();
  const Tensor length = ops::sqrt(ops::sum(ops::square(in), {-1}, keep));
  const Tensor y = ops::div(in, length);
  return record("normalize_rows", {x}, y, [y = Saved(y), length = Saved(length)](Backward& back) {
    const Tensor g = back.grad();
    const Tensor along = ops::sum(ops::mul(g, y.get()), {-1}, keep);
    back.set(0, ops::div(ops::sub(g, ops::mul(y.get(), along)), length.get()));
  });
}

struct RMSNorm : nn::Module {
  std::int64_t size;
  double eps = 1e-6;
  nn::Parameter weight = parameter("weight", {size}, nn::ones);
  explicit RMSNorm(std::int64_t size) : size(size) {}
  Var forward(const Var& x) override { return x * rsqrt(mean(square(x), -1, keep) + eps) * weight; }
};

struct SignSgd {
  static constexpr const char* name = "signsgd";
  static std::vector<std::string> hyper_names() { return {"lr", "momentum"}; }
  static std::vector<std::string> state_names() { return {"momentum_buffer"}; }
  static void check(const optim::Hyper& h) {
    SG_CHECK(h.lr >= 0, "[signsgd] lr must be >= 0, got {}", h.lr);
  }
  template <class T>
  static auto rule(const optim::Hyper& h, const optim::StepValues& v) {
    return [lr = T(h.lr * v.lr_factor), mu = T(h.momentum)](T& p, T g, T& m) {
      m = mu * m + (1 - mu) * g;
      p -= lr * T((m > 0) - (m < 0));
    };
  }
};

/// Horizontal and vertical stripes.
data::DatasetPtr stripes(std::int64_t count) {
  data::Dataset set;
  set.name = "stripes";
  set.channels = 1, set.height = 8, set.width = 8;
  set.classes = {"horizontal", "vertical"};
  for (std::int64_t i = 0; i < count; ++i) {
    const int label = static_cast<int>(i % 2);
    set.labels.push_back(static_cast<std::uint8_t>(label));
    for (std::int64_t y = 0; y < set.height; ++y)
      for (std::int64_t x = 0; x < set.width; ++x)
        set.images.push_back(((label == 0 ? y : x) + i / 2) % 2 == 0 ? 255 : 0);
  }
  set.validate();
  return std::make_shared<const data::Dataset>(std::move(set));
}

TEST(Extending, LambdaOp) {
  const Tensor x = Tensor::from<double>({3, 4, 0, 1, -2, 2}, {2, 3});
  const std::vector<double> y = normalize_rows(Var(x)).value().to_doubles();
  const std::vector<double> expected{0.6, 0.8, 0, 1.0 / 3, -2.0 / 3, 2.0 / 3};
  for (std::size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], expected[i], 1e-15);
  gradcheck([](std::span<const Var> in) { return normalize_rows(in[0]); }, {Var(x, true)});
}

TEST(Extending, Layer) {
  RMSNorm norm(3);
  norm.to(DType::f64);
  const Var x(Tensor::from<double>({3, 4, 0, 1, -2, 2}, {2, 3}), true);
  EXPECT_NEAR(norm(x).value().to_doubles()[1], 4 / std::sqrt(25.0 / 3 + 1e-6), 1e-12);
  gradcheck([&](std::span<const Var> in) { return norm(in[0]); }, {x});
}

// All of them together: own layer, own op, own optimizer, own data.
struct Net : nn::Module {
  nn::Linear in = child("in", nn::Linear(64, 24));
  RMSNorm norm = child("norm", RMSNorm(24));
  nn::Linear out = child("out", nn::Linear(24, 2));
  Var forward(const Var& x) override {
    return out(normalize_rows(relu(norm(in(flatten(x, 1))))) * 4.0);
  }
};

TEST(Extending, EverythingTrainsUnderEveryPlan) {
  const data::DatasetPtr set = stripes(64);
  docs::expect_trains_under_every_plan([&](Rank&, const std::string& plan, auto after_step) {
    auto engine = dist::initialize(
        Net(), optim::elementwise<SignSgd>({.lr = 2e-3, .momentum = 0.9}), {.plan = plan});
    data::Loader loader(set, {.batch_size = 16});
    for (int epoch = 0; epoch < 10; ++epoch) {
      for (auto [images, labels] : loader.epoch(epoch)) {
        engine->backward(nn::cross_entropy((*engine)(images), labels));
        engine->step();
        after_step(*engine);
      }
    }
    return engine;
  });
}

}  // namespace
}  // namespace sg
