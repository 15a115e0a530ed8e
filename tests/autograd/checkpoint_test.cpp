#include "autograd/checkpoint.h"

#include <gtest/gtest.h>

#include "autograd/ops.h"
#include "core/ops.h"
#include "tests/support/testing.h"

namespace sg {
namespace {

using test::error_of;
using test::expect_same_bits;

struct Layer {
  Var weight, bias;
};

std::vector<Layer> make_layers(int count, std::int64_t width, DType dtype = DType::f32) {
  std::vector<Layer> layers;
  for (int i = 0; i < count; ++i) {
    const auto seed = static_cast<std::uint64_t>(2 * i);
    layers.push_back({Var(test::random({width, width}, dtype, seed, -0.5, 0.5), true),
                      Var(test::random({width}, dtype, seed + 1), true)});
  }
  return layers;
}

Var apply(const Layer& layer, const Var& x, std::uint64_t site) {
  return dropout(gelu(linear(x, layer.weight, layer.bias)), 0.25, site) +
         softmax(x, -1) * sum(x, -1, keep);
}

std::vector<Tensor> gradients(const std::vector<Layer>& layers, const Var& x) {
  std::vector<Tensor> all{x.grad()};
  for (const Layer& layer : layers) {
    all.push_back(layer.weight.grad());
    all.push_back(layer.bias.grad());
    layer.weight.zero_grad();
    layer.bias.zero_grad();
  }
  x.zero_grad();
  return all;
}

void expect_equal(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) expect_same_bits(a[i], b[i]);
}

TEST(Checkpoint, GradientsAreEqualBitForBit) {
  const std::vector<Layer> layers = make_layers(4, 16);
  const Var x(test::random({6, 16}, DType::f32, 99), true);
  const auto run = [&](bool with) {
    Var h = x;
    for (std::uint64_t i = 0; i < layers.size(); ++i) {
      const auto fn = [&, i](const Var& in) { return apply(layers[i], in, i); };
      h = with ? checkpoint(fn, h) : fn(h);
    }
    const Var loss = mean(square(h));
    loss.backward();
    return loss.value();
  };
  const Tensor plain_loss = run(false);
  const std::vector<Tensor> plain = gradients(layers, x);
  const Tensor loss = run(true);
  expect_same_bits(loss, plain_loss);
  expect_equal(gradients(layers, x), plain);
}

// A checkpoint within a checkpoint: recomputed from the outside in.
TEST(Checkpoint, Nested) {
  const std::vector<Layer> layers = make_layers(6, 8);
  const Var x(test::random({5, 8}, DType::f32, 98), true);
  const auto plain = [&](Var h, std::uint64_t from, std::uint64_t to) {
    for (std::uint64_t i = from; i < to; ++i) h = apply(layers[i], h, i);
    return h;
  };
  sum(plain(x, 0, 6)).backward();
  const std::vector<Tensor> expected = gradients(layers, x);
  const auto inner = [&](const Var& in, std::uint64_t from) {
    return checkpoint([&, from](const Var& h) { return plain(h, from, from + 2); }, in);
  };
  sum(checkpoint(
          [&](const Var& in) { return tanh(inner(apply(layers[2], inner(in, 0), 2), 3)) * 1.0; },
          x))
      .backward();
  const std::vector<Tensor> nested = gradients(layers, x);
  sum(tanh(plain(x, 0, 5)) * 1.0).backward();
  expect_equal(nested, gradients(layers, x));
  // Three levels of one function.
  const auto wrap = [](const std::function<Var(const Var&)>& fn) {
    return [fn](const Var& in) { return checkpoint(fn, in); };
  };
  const std::function<Var(const Var&)> all = [&](const Var& in) { return plain(in, 0, 6); };
  sum(wrap(wrap(wrap(all)))(x)).backward();
  expect_equal(gradients(layers, x), expected);
}

TEST(Checkpoint, RecomputesEachSegmentOnceAndOnlyInBackward) {
  const Var x(test::random({4}, DType::f64), true);
  int first = 0, second = 0;
  const auto fn = [&](const Var& in) {
    recomputing() ? ++second : ++first;
    return exp(square(tanh(in)));
  };
  const Var y = checkpoint(fn, checkpoint(fn, x));
  EXPECT_EQ(first, 2);
  EXPECT_EQ(second, 0);
  EXPECT_FALSE(recomputing());
  sum(y).backward();
  EXPECT_EQ(first, 2);
  EXPECT_EQ(second, 2);
  EXPECT_FALSE(recomputing());
}

TEST(Checkpoint, SeveralInputsOfWhichSomeNeedNoGradient) {
  const auto make = [] { return Var(test::random({3, 3}, DType::f64, 1), true); };
  const Var constant(test::random({3, 3}, DType::f64, 2));
  const auto fn = [](std::span<const Var> in) { return matmul(tanh(in[0]), in[1]) * in[2]; };
  const Var a = make(), b = make(), c = make(), d = make();
  sum(checkpoint(fn, {a, constant, b})).backward();
  sum(fn(std::vector<Var>{c, constant, d})).backward();
  expect_same_bits(a.grad(), c.grad());
  expect_same_bits(b.grad(), d.grad());
  EXPECT_FALSE(constant.grad().defined());
}

TEST(Checkpoint, DropoutDrawsTheSameMaskAfterTheStepHasMoved) {
  const Var x(Tensor::full({8, 64}, 1), true);
  const Var y = checkpoint([](const Var& in) { return dropout(square(in), 0.5, 3); }, x);
  const Tensor value = y.value().clone();
  {
    const Scoped state(current_rank().state,
                       StepState{7, 1000});  // another micro-batch has begun meanwhile
    sum(y).backward();
  }
  // d/dx of mask * x^2 / (1 - p) at 1 is twice the value.
  expect_same_bits(x.grad(), ops::mul(value, 2));
}

TEST(Checkpoint, HoldsFewerBytes) {
  const std::vector<Layer> layers = make_layers(8, 64);
  const Var x(test::random({128, 64}, DType::f32, 97), true);
  Ledger& ledger = current_rank().ledger();
  const auto live_after_forward = [&](bool with) {
    const std::int64_t before = ledger.live(Kind::activations);
    Var h = x;
    for (std::uint64_t i = 0; i < layers.size(); ++i) {
      const auto fn = [&, i](const Var& in) { return apply(layers[i], in, i); };
      h = with ? checkpoint(fn, h) : fn(h);
    }
    const std::int64_t live = ledger.live(Kind::activations) - before;
    sum(h).backward();
    gradients(layers, x);
    h = Var();
    EXPECT_EQ(ledger.live(Kind::activations), before) << "something outlives its backward";
    return live;
  };
  const std::int64_t plain = live_after_forward(false), with = live_after_forward(true);
  EXPECT_EQ(with, 8 * 128 * 64 * 4) << "one activation a segment: its input or the result";
  EXPECT_GT(2 * plain, 5 * with);
}

TEST(Checkpoint, WithoutGradientIsJustACall) {
  const NoGrad scope;
  const Var x(test::random({4}, DType::f64), true);
  const Var y = checkpoint([](const Var& in) { return exp(in); }, x);
  EXPECT_FALSE(y.requires_grad());
  expect_same_bits(y.value(), ops::exp(x.value()));
}

TEST(Checkpoint, NoGradInsideTheFunction) {
  const Var x(test::random({4}, DType::f64), true), z(x.value(), true);
  const auto fn = [](const Var& in) {
    Var scale;
    {
      const NoGrad scope;
      scale = exp(sum(tanh(in)));
    }
    return square(in) * scale;
  };
  sum(checkpoint(fn, x)).backward();
  sum(fn(z)).backward();
  expect_same_bits(x.grad(), z.grad());
}

TEST(Checkpoint, AFunctionThatRunsOtherOpsTheSecondTimeIsAnError) {
  const Var x(test::random({4}, DType::f64), true);
  const Var y =
      checkpoint([](const Var& in) { return recomputing() ? tanh(in) : tanh(tanh(in)); }, x);
  EXPECT_EQ(error_of([&] { sum(y).backward(); }),
            "[checkpoint] recomputation saved 1 values, the first forward 2: the function must run "
            "the same ops both "
            "times");
}

TEST(Checkpoint, ASecondBackwardThrows) {
  const Var x(test::random({4}, DType::f64), true);
  const Var y = sum(checkpoint([](const Var& in) { return tanh(in); }, x));
  y.backward();
  EXPECT_NE(error_of([&] { y.backward(); }).find("the graph was already used"), std::string::npos);
}

}  // namespace
}  // namespace sg
