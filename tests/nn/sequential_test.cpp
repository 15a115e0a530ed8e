// Neighbours run as one op compute what they compute one by one; checkpointed stretches, too.
#include "nn/sequential.h"

#include <cmath>
#include <vector>

#include "nn/nn.h"
#include "tests/nn/nets.h"
#include "tests/nn/support.h"

namespace sg::nn {
namespace {

Tensor image(const Shape& shape, DType dtype) {
  Tensor t = Tensor::empty(shape, dtype, kCpu);
  const Parameter values("image", shape, normal(), dtype);
  values.read(1, 0, t.numel(), t.raw_data(), dtype);
  return t.to(current_rank().device);
}

struct Result {
  std::vector<double> y, dx;
  std::vector<std::vector<double>> gradients;
};

Result run(Module& net, const Tensor& image, const std::function<Var(const Var&)>& forward) {
  const Var x(image, true);
  net.zero_grad();
  const Var y = forward(x);
  sum(square(y)).backward();
  Result r{y.value().to_doubles(), x.grad().to_doubles(), {}};
  for (const NamedParameter& p : net.named_parameters())
    r.gradients.push_back(p.parameter.grad().to_doubles());
  return r;
}

void expect_close(const std::vector<double>& a, const std::vector<double>& b, double tolerance) {
  ASSERT_EQ(a.size(), b.size());
  double scale = 1;
  for (const double v : b) scale = std::max(scale, std::abs(v));
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], tolerance * scale) << i;
}

void expect_close(const Result& a, const Result& b, double tolerance) {
  expect_close(a.y, b.y, tolerance);
  expect_close(a.dx, b.dx, tolerance);
  ASSERT_EQ(a.gradients.size(), b.gradients.size());
  for (std::size_t i = 0; i < a.gradients.size(); ++i)
    expect_close(a.gradients[i], b.gradients[i], tolerance);
}

struct Fused {
  const char* name;
  Shape input;
  std::function<Sequential()> make;
};

class Fusion : public ::testing::TestWithParam<Fused> {};

// Net by net, what sequential() runs against its modules called one after another.
TEST_P(Fusion, ComputesWhatTheModulesCompute) {
  for (const DType dtype : {DType::f64, DType::f32}) {
    SCOPED_TRACE(name_of(dtype));
    Sequential net = GetParam().make();
    net.to(dtype);
    const Tensor x = image(GetParam().input, dtype);
    const Result fused = run(net, x, [&](const Var& v) { return net(v); });
    const Result single = run(net, x, [&](const Var& v) {
      Var y = v;
      for (int i = 0; i < net.size(); ++i) y = net[i](y);
      return y;
    });
    expect_close(fused, single, dtype == DType::f64 ? 1e-13 : 3e-6);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, Fusion,
    ::testing::Values(
        Fused{"LinearRelu", {5, 7}, [] { return sequential(Linear(7, 4), ReLU()); }},
        Fused{"LinearNoBiasRelu", {5, 7}, [] { return sequential(Linear(7, 4, false), ReLU()); }},
        Fused{"ConvRelu",
              {2, 3, 9, 8},
              [] { return sequential(Conv2d(3, 4, 3, {.stride = 2, .padding = 1}), ReLU()); }},
        Fused{"ConvNoBiasRelu",
              {2, 3, 9, 8},
              [] { return sequential(Conv2d(3, 4, 3, {.bias = false}), ReLU()); }},
        Fused{"ConvReluPool",
              {3, 3, 12, 12},
              [] { return sequential(Conv2d(3, 6, 5), ReLU(), MaxPool2d(2)); }},
        Fused{"ConvReluPoolOdd",
              {2, 4, 9, 10},
              [] { return sequential(Conv2d(4, 5, 3, {.padding = 1}), ReLU(), MaxPool2d(2)); }},
        Fused{"ConvReluOverlappingPool",
              {2, 3, 9, 9},
              [] {
                return sequential(Conv2d(3, 4, 3), ReLU(),
                                  MaxPool2d(3, {.stride = 2, .padding = 1}));
              }},
        Fused{"NormRelu", {4, 3, 5, 5}, [] { return sequential(BatchNorm2d(3), ReLU()); }},
        Fused{"ConvNormReluPool",
              {4, 3, 6, 6},
              [] { return sequential(Conv2d(3, 4, 3), BatchNorm2d(4), ReLU(), MaxPool2d(2)); }},
        Fused{"ConvTanhPool",
              {2, 3, 6, 6},
              [] { return sequential(Conv2d(3, 4, 3), Tanh(), MaxPool2d(2)); }},
        Fused{"ReluFirst", {2, 3}, [] { return sequential(ReLU(), Linear(3, 2), ReLU(), ReLU()); }},
        Fused{"Tutorial", {2, 3, 32, 32}, [] { return tutorial_net(); }},
        Fused{"Vgg", {1, 3, 32, 32}, [] { return vgg_net(); }}),
    [](const auto& info) { return info.param.name; });

TEST(Sequential, FusesOnlyTheVeryTypes) {
  struct Doubled : Linear {
    using Linear::Linear;
    Var forward(const Var& x) override { return Linear::forward(x) * 2.0; }
  };
  Sequential net = sequential(Doubled(2, 1), ReLU());
  dynamic_cast<Linear&>(net[0]).weight.init(ones);
  dynamic_cast<Linear&>(net[0]).bias.init(zeros);
  EXPECT_EQ(net(Var(Tensor::full({1, 2}, 1))).item(), 4);
}

TEST(Sequential, FusingDoesNotHoldTheActivationTwice) {
  const auto peak = [](bool fused) {
    Rank rank(0, 1, 1, 0);
    const RankScope scope(rank);
    Sequential net = sequential(Conv2d(3, 16, 5), ReLU());
    const Var x(Tensor::full({8, 3, 32, 32}, 1));
    const Var y = fused ? net(x) : net[1](net[0](x));
    return rank.ledger().peak(Kind::activations);
  };
  constexpr std::int64_t kActivation = 8 * 16 * 28 * 28 * sizeof(float);
  EXPECT_EQ(peak(false) - peak(true), kActivation);
}

TEST(Sequential, CheckpointedStretchesGiveTheSameBits) {
  const Tensor x = image({2, 3, 32, 32}, DType::f32);
  Sequential net = tutorial_net();
  const Result kept = run(net, x, [&](const Var& v) { return net(v); });
  for (const int segments : {1, 2, 3, 5, 100}) {
    net.checkpoint(segments);
    const Result again = run(net, x, [&](const Var& v) { return net(v); });
    EXPECT_EQ(again.y, kept.y);
    EXPECT_EQ(again.dx, kept.dx);
    EXPECT_EQ(again.gradients, kept.gradients) << segments;
  }
  EXPECT_EQ(error_of([&] { net.checkpoint(-1); }),
            "[Sequential] the number of segments must not be negative, got -1");
}

TEST(Sequential, CheckpointedDropoutDrawsItsMaskAgain) {
  Sequential net = sequential(Linear(6, 6), Dropout(0.5), Linear(6, 3), Tanh());
  const Tensor x = image({4, 6}, DType::f32);
  const Result kept = run(net, x, [&](const Var& v) { return net(v); });
  net.checkpoint(2);
  const Result again = run(net, x, [&](const Var& v) { return net(v); });
  EXPECT_EQ(again.gradients, kept.gradients);
}

TEST(Sequential, CheckpointingKeepsFewerActivations) {
  const auto kept = [](int segments) {
    Rank rank(0, 1, 1, 0);
    const RankScope scope(rank);
    Sequential net;
    for (int i = 0; i < 16; ++i) {
      net.append(Linear(64, 64));
      net.append(Tanh());
    }
    net.checkpoint(segments);
    const Var y = net(Var(Tensor::full({128, 64}, 0.1)));
    return rank.ledger().live(Kind::activations);
  };
  EXPECT_LT(kept(4) * 2, kept(0));
}

TEST(Sequential, OfNothingIsTheIdentity) {
  Sequential net;
  EXPECT_EQ(net(Var(Tensor::full({}, 3))).item(), 3);
  EXPECT_EQ(net.size(), 0);
  EXPECT_EQ(error_of([&] { net[0]; }), "[Sequential] there is no module 0 among 0");
  EXPECT_EQ(error_of([&] { net.append(ModulePtr()); }), "[Sequential] module 0 is null");
}

}  // namespace
}  // namespace sg::nn
