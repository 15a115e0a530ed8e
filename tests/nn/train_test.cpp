// Modules train without dist or optim: loops written by hand.
#include <cmath>
#include <vector>

#include "nn/nn.h"
#include "tests/nn/support.h"

namespace sg::nn {
namespace {

Tensor noise(const std::string& name, const Shape& shape) {
  Tensor t = Tensor::empty(shape);
  Parameter(name, shape, normal()).read(9, 0, t.numel(), t.raw_data(), DType::f32);
  return t;
}

void descend(const std::vector<ParameterView>& views, float lr) {
  update(views, [lr](const ParameterView& p, const Tensor& grad) {
    const auto w = p.values<float>(), g = span_of<float>(grad);
    for (std::size_t i = 0; i < w.size(); ++i) w[i] -= lr * g[i];
  });
}

TEST(Train, LinearRegressionFindsTheWeights) {
  if (current_rank().device.is_cuda()) GTEST_SKIP() << "about spans that the CPU updates";
  const Tensor x = noise("x", {64, 3});
  const std::vector<float> w = {1, -2, 0.5};
  std::vector<float> target;
  for (int i = 0; i < 64; ++i) {
    const float* row = x.data<float>() + 3 * i;
    target.push_back(row[0] * w[0] + row[1] * w[1] + row[2] * w[2] + 4);
  }
  const Tensor y = Tensor::from(target, {64, 1});
  Linear net(3, 1);
  const auto views = parameter_views(net);
  EXPECT_EQ(views.size(), 2u);
  EXPECT_EQ(views[1].name, "bias");
  const MSELoss loss;
  double last = 0;
  for (int step = 0; step < 200; ++step) {
    net.zero_grad();
    const Var l = loss(net(Var(x)), Var(y));
    last = l.item();
    l.backward();
    descend(views, 0.1f);
  }
  EXPECT_LT(last, 1e-8);
  const auto learnt = net.weight.value().to_vector<float>();
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(learnt[i], w[i], 1e-4);
  EXPECT_NEAR(net.bias.value().item(), 4, 1e-4);
}

TEST(Train, AConvolutionalNetLearnsItsSamples) {
  Rank rank(0, 1, 2, 0);
  const RankScope scope(rank);
  Sequential net = sequential(Conv2d(1, 8, 3, {.padding = 1}), BatchNorm2d(8), ReLU(), MaxPool2d(2),
                              Flatten(), Linear(128, 3));
  const Tensor x = noise("images", {24, 1, 8, 8});
  std::vector<std::int64_t> labels;
  for (int i = 0; i < 24; ++i) labels.push_back(i % 3);
  const Tensor t = Tensor::from(labels, {24});
  const auto views = parameter_views(net);
  double first = 0, last = 0;
  for (int step = 0; step < 60; ++step) {
    net.zero_grad();
    const Var loss = cross_entropy(net(Var(x)), t);
    last = loss.item();
    if (step == 0) first = last;
    loss.backward();
    descend(views, 0.2f);
    ++rank.state.step;
  }
  EXPECT_NEAR(first, std::log(3.0), 0.7);
  EXPECT_LT(last, 0.05);
}

TEST(Train, FrozenParametersStayAndHaveNoView) {
  if (current_rank().device.is_cuda()) GTEST_SKIP() << "about spans that the CPU updates";
  Sequential net = sequential(Linear(3, 4), Tanh(), Linear(4, 1));
  net[0].requires_grad_(false);
  const auto frozen = net.parameter_named("0.weight").value().to_vector<float>();
  const auto views = parameter_views(net);
  ASSERT_EQ(views.size(), 2u);
  EXPECT_EQ(views[0].name, "2.weight");
  sum(net(Var(noise("x", {5, 3})))).backward();
  descend(views, 1);
  EXPECT_EQ(net.parameter_named("0.weight").value().to_vector<float>(), frozen);
  EXPECT_EQ(gradients(views).size(), 2u);
}

TEST(Train, BackwardAfterAnUpdateIsAnError) {
  if (current_rank().device.is_cuda()) GTEST_SKIP() << "about spans that the CPU updates";
  Linear net(3, 1);
  const auto views = parameter_views(net);
  const Var x(noise("x", {5, 3}), true);
  const Var loss = sum(square(net(x)));
  sum(square(net(x))).backward();
  descend(views, 0.1f);
  const std::string text = error_of([&] { loss.backward(); });
  EXPECT_EQ(text,
            "[backward] f32 [1, 3] (of parameter weight) was changed in place between forward and "
            "backward: version 1, saved at 0; run backward before the parameters change");
}

TEST(Train, UnusedParametersHaveNoGradientAndAreNotUpdated) {
  struct Net : Module {
    Linear used = child("used", Linear(2, 1)), unused = child("unused", Linear(2, 1));
    Var forward(const Var& x) override { return used(x); }
  } net;
  const auto views = parameter_views(net);
  sum(net(Var(noise("x", {5, 2})))).backward();
  int updated = 0;
  update(views, [&](const ParameterView&, const Tensor&) { ++updated; });
  EXPECT_EQ(updated, 2);
  EXPECT_FALSE(gradients(views)[2].defined());
}

}  // namespace
}  // namespace sg::nn
