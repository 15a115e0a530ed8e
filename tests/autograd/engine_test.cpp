#include "autograd/engine.h"

#include <gtest/gtest.h>

#include "autograd/node.h"
#include "autograd/ops.h"
#include "core/ops.h"
#include "tests/support/testing.h"

namespace sg {
namespace {

using test::error_of;
using test::expect_close;
using test::expect_same_bits;

Var leaf(std::vector<double> values) {
  const auto n = static_cast<std::int64_t>(values.size());
  return Var(Tensor::from(values, {n}), true);
}

std::vector<double> grad_of(const Var& x) { return x.grad().to_doubles(); }
using Values = std::vector<double>;

TEST(Engine, UndoesBroadcasting) {
  const Var row = leaf({1, 2, 3}), scalar(Tensor::full({}, 2, DType::f64), true);
  const Var matrix(Tensor::full({2, 3}, 1, DType::f64), true),
      column(Tensor::full({2, 1}, 1, DType::f64), true);
  sum(row * matrix + scalar * column).backward();
  EXPECT_EQ(grad_of(row), (Values{2, 2, 2}));
  EXPECT_EQ(grad_of(scalar), (Values{6}));
  EXPECT_EQ(column.grad().shape(), (Shape{2, 1}));
  EXPECT_EQ(grad_of(column), (Values{6, 6}));
  EXPECT_EQ(grad_of(matrix), (Values{1, 2, 3, 1, 2, 3}));
}

TEST(Engine, ALeafUsedSeveralTimes) {
  const Var x = leaf({1, -2, 3});
  const Var y = x * x * x + 2.0 * x - x / 4.0;
  y.backward(Tensor::full({3}, 1, DType::f64));
  for (int i = 0; i < 3; ++i) {
    const double v = x.value().to_doubles()[static_cast<std::size_t>(i)];
    EXPECT_NEAR(grad_of(x)[static_cast<std::size_t>(i)], 3 * v * v + 2 - 0.25, 1e-12);
  }
}

// add() hands the same tensor to both inputs: adding to one must not change the other.
TEST(Engine, AGradientSharedByTwoInputsIsNotChangedForBoth) {
  const Var a = leaf({1, 2}), b = leaf({3, 4});
  const Var p = a * 1.0, q = b * 1.0;
  const Var s = p + q;
  sum(s + p * 3.0 + p * 5.0).backward();
  EXPECT_EQ(grad_of(a), (Values{9, 9}));
  EXPECT_EQ(grad_of(b), (Values{1, 1}));
}

TEST(Engine, TheSeedIsNotChangedOrKept) {
  const Tensor seed = Tensor::full({2}, 1, DType::f64);
  const Var x = leaf({1, 2});
  (x + x).backward(seed);
  EXPECT_EQ(seed.to_doubles(), (Values{1, 1}));
  const Var y = leaf({1, 2});
  y.backward(seed);  // a leaf is its own root
  y.backward(seed);
  EXPECT_EQ(grad_of(y), (Values{2, 2}));
  EXPECT_EQ(seed.to_doubles(), (Values{1, 1}));
}

TEST(Engine, GradientsAddUpUntilZeroGrad) {
  const Var x = leaf({2});
  square(x).backward();
  const Tensor first = x.grad();
  square(x).backward();
  EXPECT_EQ(grad_of(x), (Values{8}));
  EXPECT_EQ(first.to_doubles(), (Values{4})) << "a gradient that somebody holds was changed";
  x.zero_grad();
  EXPECT_FALSE(x.grad().defined());
  square(x).backward();
  EXPECT_EQ(grad_of(x), (Values{4}));
}

TEST(Engine, DetachAndNoGradCutTheGraph) {
  const Var x = leaf({3});
  const Var y = square(x);
  sum(y.detach() * x).backward();
  EXPECT_EQ(grad_of(x), (Values{9}));
  {
    const NoGrad scope;
    EXPECT_FALSE(grad_enabled());
    EXPECT_FALSE(square(x).requires_grad());
    const EnableGrad inner;
    EXPECT_TRUE(square(x).requires_grad());
  }
  EXPECT_TRUE(grad_enabled());
  EXPECT_EQ(error_of([&] { x.detach().backward(); }),
            "[backward] the value does not depend on anything that requires a gradient");
}

TEST(Engine, InputsWithoutGradientGetNone) {
  const Var x = leaf({1, 2}), constant(Tensor::full({2}, 3, DType::f64));
  sum(x * constant).backward();
  EXPECT_EQ(grad_of(x), (Values{3, 3}));
  EXPECT_FALSE(constant.grad().defined());
}

TEST(Engine, ASecondBackwardThrows) {
  const Var x = leaf({1, 2});
  const Var y = exp(x);
  const Var z = sum(y);
  z.backward();
  const std::string text =
      "[backward] the graph was already used: the saved values of sum are gone; run the forward "
      "again before a second "
      "backward";
  EXPECT_EQ(error_of([&] { z.backward(); }), text);
  // Also through another root that shares a part of the graph.
  EXPECT_EQ(error_of([&] { sum(y * 2.0).backward(); }),
            "[backward] the graph was already used: the saved values of exp are gone; run the "
            "forward again before a "
            "second backward");
  EXPECT_EQ(grad_of(x).size(), 2u);
}

TEST(Engine, AChangeInPlaceBetweenForwardAndBackwardIsAnError) {
  const Var x = leaf({1, 2, 3});
  const Var y = exp(x);  // keeps its output
  ops::mul_(y.value(), 2);
  EXPECT_EQ(error_of([&] { sum(y).backward(); }),
            "[backward] f64 [3] (the output of exp) was changed in place between forward and "
            "backward: version 1, saved "
            "at 0; change a clone() of it");
  // A change of a view counts for the whole, and one of a value that nobody saved is no error.
  const Var a = leaf({1, 2, 3});
  const Var b = square(a);
  a.value().slice(0, 0, 1).fill(7);
  EXPECT_NE(
      error_of([&] { sum(b).backward(); }).find("changed in place between forward and backward"),
      std::string::npos);
  const Var c = leaf({1, 2, 3});
  const Var d = c + 1.0;
  ops::mul_(d.value(), 2);
  EXPECT_EQ(error_of([&] { sum(d).backward(); }), "no error");
}

TEST(Engine, RootsAndSeedsAreChecked) {
  const Var x = leaf({1, 2});
  EXPECT_EQ(error_of([&] { (x * 2.0).backward(); }),
            "[backward] a value of shape [2] needs a seed; only a single element has a default");
  EXPECT_EQ(error_of([&] { (x * 2.0).backward(Tensor::zeros({3}, DType::f64)); }),
            "[backward] the seed is f64 [3], the value is f64 [2]");
  EXPECT_EQ(error_of([&] { (x * 2.0).backward(Tensor::zeros({2}, DType::f32)); }),
            "[backward] the seed is f32 [2], the value is f64 [2]");
  EXPECT_EQ(error_of([&] { Var().backward(); }),
            "[backward] the value does not depend on anything that requires a gradient");
}

void differentiate_deep_and_wide(int nodes) {
  const Var x = leaf({1});
  {
    Var y = x;
    for (int i = 0; i < nodes; ++i) y = y + 0.5;
    sum(y).backward();
    EXPECT_EQ(grad_of(x), (Values{1}));
    // And one that is dropped without a backward.
    for (int i = 0; i < nodes; ++i) y = y + 0.5;
  }
  // Wide instead of deep: one leaf, many uses.
  x.zero_grad();
  Var total = x;
  for (int i = 0; i < nodes / 10; ++i) total = total + x * 2.0;
  sum(total).backward();
  EXPECT_EQ(grad_of(x), (Values{nodes / 5 + 1.0}));
}

TEST(Engine, AGraphOfTwentyThousandNodes) { differentiate_deep_and_wide(20'000); }
TEST(SlowEngine, AGraphOfTwoHundredThousandNodes) { differentiate_deep_and_wide(200'000); }

TEST(Engine, SeveralOutputsOfWhichOneIsUsed) {
  const Var x = leaf({1, 2, 3, 4});
  const Tensor value = x.value();
  int calls = 0;
  const auto outputs = record_many(
      "halves", std::span<const Var>(&x, 1), {value.slice(0, 0, 2), value.slice(0, 2, 2)},
      [&](Backward& back) {
        ++calls;
        EXPECT_FALSE(back.has_grad(0));
        EXPECT_TRUE(back.has_grad(1));
        EXPECT_EQ(back.grad(0).to_doubles(), (Values{0, 0}));  // zeros where nothing flowed in
        back.set(0, ops::cat(std::vector<Tensor>{back.grad(0), back.grad(1)}, 0));
      });
  sum(outputs[1] * 3.0).backward();
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(grad_of(x), (Values{0, 0, 3, 3}));
}

TEST(Engine, AGradientOfAnotherDtypeIsAnError) {
  const Var x = leaf({1});
  const Var y = record("wrong", {x}, x.value(),
                       [](Backward& back) { back.set(0, Tensor::zeros({1}, DType::f32)); });
  EXPECT_EQ(error_of([&] { sum(y).backward(); }),
            "[backward of wrong] gradient f32 [1] of an input of dtype f64");
}

TEST(Engine, GradientsAreBookedAsGradients) {
  Ledger& ledger = current_rank().ledger();
  const std::int64_t before = ledger.live(Kind::gradients);
  const Var w(test::random({8, 4}, DType::f32), true), x(test::random({3, 4}, DType::f32), true);
  sum(linear(x, w)).backward();
  EXPECT_EQ(ledger.live(Kind::gradients) - before, (8 * 4 + 3 * 4) * 4);
  sum(linear(x, w)).backward();
  EXPECT_EQ(ledger.live(Kind::gradients) - before, (8 * 4 + 3 * 4) * 4);
  w.zero_grad();
  EXPECT_EQ(ledger.live(Kind::gradients) - before, 3 * 4 * 4);
  x.zero_grad();
}

// ---- sinks

class FakeSink : public GradSink {
 public:
  Tensor place;  // offered for leaf 0
  std::vector<std::string> log;
  std::vector<Tensor> received;
  Tensor target(const VarImpl& leaf) override {
    log.push_back("target " + leaf.name);
    return leaf.name == "weight" ? place : Tensor();
  }
  void ready(VarImpl& leaf, const Tensor& gradient) override {
    log.push_back("ready " + leaf.name);
    EXPECT_TRUE(gradient.is_contiguous());
    EXPECT_EQ(gradient.shape(), leaf.shape);
    received.push_back(gradient);
  }
};

struct SinkTest : testing::Test {
  std::shared_ptr<FakeSink> sink = std::make_shared<FakeSink>();
  Var parameter(const std::string& name, const Shape& shape, std::uint64_t seed) {
    Var v(test::random(shape, DType::f64, seed), true);
    v.impl().name = name;
    v.impl().sink = sink;
    return v;
  }
};

TEST_F(SinkTest, AGradientIsWrittenToItsFinalPlace) {
  const Var w = parameter("weight", {3, 4}, 1), b = parameter("bias", {3}, 2);
  const Tensor buffer = Tensor::full({20}, 9, DType::f64);  // a unit's flat buffer, not aligned
  sink->place = buffer.slice(0, 5, 12).reshape({3, 4});
  const Tensor x = test::random({2, 4}, DType::f64, 3);
  linear(x, w, b).backward(Tensor::full({2, 3}, 1, DType::f64));
  EXPECT_EQ(sink->log, (std::vector<std::string>{"target weight", "target bias", "ready weight",
                                                 "ready bias"}));
  EXPECT_EQ(sink->received[0].raw_data(), sink->place.raw_data());
  expect_close(buffer.slice(0, 5, 12).reshape({3, 4}),
               ops::matmul(Tensor::full({3, 2}, 1, DType::f64), x), 1e-15, 1e-15);
  EXPECT_EQ(buffer.slice(0, 0, 5).to_doubles(), (Values{9, 9, 9, 9, 9}));
  EXPECT_EQ(buffer.slice(0, 17, 3).to_doubles(), (Values{9, 9, 9}));
  EXPECT_FALSE(w.grad().defined());
}

// Two uses: no op may write to the final place, and the gradient arrives once, complete.
TEST_F(SinkTest, ALeafOfTwoUsesArrivesOnceAndComplete) {
  const Var w = parameter("weight", {4, 4}, 1);
  sink->place = Tensor::full({4, 4}, 9, DType::f64);
  const Tensor x = test::random({2, 4}, DType::f64, 3);
  sum(linear(linear(x, w), w)).backward();
  EXPECT_EQ(sink->log, (std::vector<std::string>{"ready weight"}));
  EXPECT_EQ(sink->place.to_doubles(), Values(16, 9.0));
  const Var plain(w.value(), true);
  sum(linear(linear(x, plain), plain)).backward();
  expect_same_bits(sink->received[0], plain.grad());
}

// An expanded gradient (of a sum) reaches the sink as ordinary memory, and a leaf that nothing
// flows into as zeros.
TEST_F(SinkTest, WhatArrivesIsContiguousAndNeverMissing) {
  const Var w = parameter("weight", {2, 3}, 1), unused = parameter("unused", {2}, 2);
  sum(w).backward();
  EXPECT_EQ(sink->received[0].to_doubles(), Values(6, 1.0));
  const Var y = record("ignores", {w, unused}, ops::mul(w.value(), 2),
                       [](Backward& back) { back.set(0, ops::mul(back.grad(), 2)); });
  sum(y).backward();
  EXPECT_EQ(sink->log, (std::vector<std::string>{"ready weight", "ready weight", "ready unused"}));
  EXPECT_EQ(sink->received[2].to_doubles(), (Values{0, 0}));
}

// Final means: when the last node that uses the leaf has run, not at the end of the backward.
TEST_F(SinkTest, AGradientIsFinalAsSoonAsItsLastUseHasRun) {
  const Var first = parameter("first", {2}, 1), last = parameter("last", {2}, 2);
  const Var h = record("early", {first}, ops::mul(first.value(), 1), [this](Backward& back) {
    sink->log.push_back("early runs");
    back.set(0, back.grad());
  });
  sum(h * last).backward();
  EXPECT_EQ(sink->log, (std::vector<std::string>{"ready last", "early runs", "ready first"}));
}

}  // namespace
}  // namespace sg
