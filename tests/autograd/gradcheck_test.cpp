// The checker must find wrong gradients, or every test that uses it proves nothing.
#include "autograd/gradcheck.h"

#include <gtest/gtest.h>

#include "autograd/node.h"
#include "autograd/ops.h"
#include "core/ops.h"
#include "tests/support/testing.h"

namespace sg {
namespace {

using test::error_of;

Var input(const Shape& shape) { return Var(test::random(shape, DType::f64, 3), true); }

TEST(Gradcheck, AcceptsARightGradientAndRestoresTheInputs) {
  const Var x = input({3, 2});
  const Tensor before = x.value().clone();
  gradcheck([](std::span<const Var> in) { return tanh(in[0]); }, {x});
  test::expect_same_bits(x.value(), before);
}

TEST(Gradcheck, FindsAFactorThatIsOffByAMillionth) {
  const auto wrong = [](double factor) {
    return [factor](std::span<const Var> in) {
      return record("wrong", {in[0]}, ops::square(in[0].value()),
                    [x = Saved(in[0].value()), factor](Backward& back) {
                      back.set(0, ops::mul(ops::mul(back.grad(), x.get()), 2 * factor));
                    });
    };
  };
  const Var x(Tensor::full({2}, 3, DType::f64), true);
  EXPECT_EQ(error_of([&] { gradcheck(wrong(1), {x}); }), "no error");
  const std::string text = error_of([&] { gradcheck(wrong(1 + 4e-6), {x}); });
  EXPECT_EQ(text.find("[gradcheck] input 0 of shape [2], element 0: backward gives "), 0u) << text;
}

TEST(Gradcheck, FindsOneWrongElementAndOneForgottenInput) {
  const auto misses_last = [](std::span<const Var> in) {
    return record("wrong", {in[0]}, ops::mul(in[0].value(), 2), [](Backward& back) {
      const Tensor g = ops::mul(back.grad(), 2);
      g.slice(0, 2, 1).fill(0);
      back.set(0, g);
    });
  };
  EXPECT_NE(error_of([&] { gradcheck(misses_last, {input({3})}); }).find("element 2"),
            std::string::npos);
  const auto misses_second = [](std::span<const Var> in) {
    return record("wrong", {in[0], in[1]}, ops::add(in[0].value(), in[1].value()),
                  [](Backward& back) { back.set(0, back.grad()); });
  };
  EXPECT_NE(error_of([&] {
              gradcheck(misses_second, {input({2}), input({2})});
            }).find("input 1"),
            std::string::npos);
}

TEST(Gradcheck, FindsASumThatLacksBroadcasting) {
  const auto forgets = [](std::span<const Var> in) {  // the gradient of one row for a sum over two
    return record("wrong", {in[0], in[1]}, ops::mul(in[0].value(), in[1].value()),
                  [x = Saved(in[0].value()), y = Saved(in[1].value())](Backward& back) {
                    back.set(0, ops::mul(back.grad(), y.get()));
                    back.set(1, ops::mul(back.grad(), x.get()).slice(0, 0, 1).squeeze(0));
                  });
  };
  EXPECT_NE(error_of([&] {
              gradcheck(forgets, {input({2, 3}), input({3})});
            }).find("input 1"),
            std::string::npos);
}

TEST(Gradcheck, NeedsDoubles) {
  EXPECT_EQ(error_of([&] {
              gradcheck([](std::span<const Var> in) { return in[0]; },
                        {Var(Tensor::zeros({2}), true)});
            }),
            "[gradcheck] inputs must be f64 leaves, got f32 [2]");
}

}  // namespace
}  // namespace sg
