// Every op against PyTorch's values and against finite differences, over dtypes and memory layouts.
#include "autograd/ops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <string>

#include "autograd/gradcheck.h"
#include "core/kernels/elementwise_list.h"
#include "tests/autograd/golden_ops.h"
#include "tests/support/testing.h"

namespace sg {
namespace {

using test::GoldenCase;

const std::vector<GoldenCase>& golden() {
  static const std::vector<GoldenCase> cases = test::load_golden("ops.json");
  return cases;
}

double largest(const Tensor& x) {
  double most = 0;
  for (const double v : x.to_doubles()) most = std::max(most, std::abs(v));
  return most;
}

// Outputs and gradients of all cases with inputs made by `prepare`.
template <class F>
void compare_with_golden(DType dtype, double rtol, double atol, const F& prepare) {
  for (const GoldenCase& c : golden()) {
    SCOPED_TRACE(c.text());
    // 16-bit values end at 65504 or have few digits there: extreme arguments are for the wide
    // dtypes.
    if (size_of(dtype) == 2 && std::max(largest(c.output), largest(c.grads[0])) > 1e3) continue;
    std::vector<Var> inputs;
    for (const Tensor& x : c.inputs) inputs.emplace_back(prepare(x.to(dtype)), true);
    const Var y = test::run_case(c, inputs);
    EXPECT_EQ(y.dtype(), dtype);
    test::expect_close(y.value(), c.output, rtol, atol);
    y.backward(prepare(c.seed.to(dtype)));
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      SCOPED_TRACE("gradient of input " + std::to_string(i));
      test::expect_close(inputs[i].grad(), c.grads[i], rtol, atol);
    }
    if (testing::Test::HasFailure()) return;
  }
}

Tensor as_it_is(const Tensor& x) { return x; }

TEST(GoldenOps, F64) { compare_with_golden(DType::f64, 1e-12, 1e-13, as_it_is); }
TEST(GoldenOps, F32) { compare_with_golden(DType::f32, 4e-6, 2e-6, as_it_is); }
TEST(GoldenOps, BF16) { compare_with_golden(DType::bf16, 0x1p-6, 0x1p-6, as_it_is); }
TEST(GoldenOps, F16) { compare_with_golden(DType::f16, 0x1p-9, 0x1p-8, as_it_is); }
TEST(GoldenOps, F64WithDimensionsInReverse) {
  compare_with_golden(DType::f64, 1e-12, 1e-13, test::reversed_order);
}
TEST(GoldenOps, F64EverySecondElement) {
  compare_with_golden(DType::f64, 1e-12, 1e-13, test::every_second);
}
TEST(GoldenOps, F32WithDimensionsInReverse) {
  compare_with_golden(DType::f32, 4e-6, 2e-6, test::reversed_order);
}
TEST(GoldenOps, BF16EverySecondElement) {
  compare_with_golden(DType::bf16, 0x1p-6, 0x1p-6, test::every_second);
}

TEST(GoldenOps, EveryListedElementwiseOpHasACase) {
  std::set<std::string> names;
  for (const GoldenCase& c : golden()) names.insert(c.op);
  ew::for_each(ew::Unary{}, [&](auto op) { EXPECT_TRUE(names.contains(op.name)) << op.name; });
  ew::for_each(ew::Binary{}, [&](auto op) { EXPECT_TRUE(names.contains(op.name)) << op.name; });
}

// Their values are random: the masks are held against Philox in
// Kernels.DropoutMasksAreThoseOfPhilox and the gradient against differences in
// GradcheckOps.Dropout.
const std::set<std::string> kWithoutGoldenValues{"dropout"};

TEST(GoldenOps, EveryFunctionOfTheHeaderHasACase) {
  const std::set<std::string> functions = test::public_functions("autograd/ops.h");
  EXPECT_GE(functions.size(), 55u) << "the header is not read as it is written";
  for (const char* name : {"relu", "clamp", "add", "add_scalar", "where", "var", "linear", "slice",
                           "cast", "layer_norm", "dropout", "cross_entropy"})
    EXPECT_TRUE(functions.contains(name)) << name;
  std::set<std::string> names = kWithoutGoldenValues;
  for (const GoldenCase& c : golden()) names.insert(c.op);
  for (const std::string& name : functions)
    EXPECT_TRUE(names.contains(name)) << name << " has no case in tests/golden/ops.py";
}

TEST(GoldenOps, OperatorsAreTheNamedFunctions) {
  const auto values = [](std::uint64_t seed) {
    return Var(test::random({3, 4}, DType::f64, seed, 0.5, 2), true);
  };
  const auto same = [&](auto got, auto expected) {
    const Var a = values(1), b = values(2), c = values(1), d = values(2);
    const Var x = got(a, b), y = expected(c, d);
    test::expect_same_bits(x.value(), y.value());
    sum(square(x)).backward();
    sum(square(y)).backward();
    test::expect_same_bits(a.grad(), c.grad());
    test::expect_same_bits(b.grad(), d.grad());
  };
  using V = const Var&;
  same([](V a, V b) { return a + b; }, [](V a, V b) { return add(a, b); });
  same([](V a, V b) { return a - b; }, [](V a, V b) { return sub(a, b); });
  same([](V a, V b) { return a * b; }, [](V a, V b) { return mul(a, b); });
  same([](V a, V b) { return a / b; }, [](V a, V b) { return div(a, b); });
  same([](V a, V b) { return -a * b; }, [](V a, V b) { return mul(neg(a), b); });
  same([](V a, V b) { return (a + 2.5) * (2.5 + b); },
       [](V a, V b) { return mul(add(a, 2.5), add(b, 2.5)); });
  same([](V a, V b) { return (a - 2.5) * (2.5 - b); },
       [](V a, V b) { return mul(add(a, -2.5), add(neg(b), 2.5)); });
  same([](V a, V b) { return (a * 2.5) + (2.5 * b); },
       [](V a, V b) { return add(mul(a, 2.5), mul(b, 2.5)); });
  same([](V a, V b) { return a / 8.0 + b; }, [](V a, V b) { return add(mul(a, 0.125), b); });
  same([](V a, V b) { return sum(a, 1, keep) * mean(b, -1, keep); },
       [](V a, V b) { return mul(sum(a, Dims{1}, true), mean(b, Dims{-1}, true)); });
}

// What casts round is PyTorch's to the bit, and so are the gradients, cast back.
TEST(GoldenOps, CastsRoundAlike) {
  std::ifstream in(std::string(SG_TEST_DATA) + "/cast.json");
  ASSERT_TRUE(in.good());
  int count = 0;
  for (const auto& c : nlohmann::json::parse(in)) {
    const DType from = test::dtype_named(c.at("from")), to = test::dtype_named(c.at("to"));
    SCOPED_TRACE(fmt::format("{} to {}", name_of(from), name_of(to)));
    const Var x(test::tensor_of(c.at("input"), from), true);
    const Var y = cast(x, to);
    test::expect_same_bits(y.value(), test::tensor_of(c.at("output"), to));
    y.backward(test::tensor_of(c.at("seed"), to));
    test::expect_same_bits(x.grad(), test::tensor_of(c.at("grad"), from));
    ++count;
  }
  EXPECT_EQ(count, 16);
}

// On meta the same shapes come out, forward and backward, and no byte is allocated.
TEST(MetaOps, InferTheShapesOfEveryCase) {
  for (const GoldenCase& c : golden()) {
    SCOPED_TRACE(c.text());
    std::vector<Var> inputs;
    for (const Tensor& x : c.inputs)
      inputs.emplace_back(Tensor::empty(x.shape(), DType::f32, kMeta), true);
    const Var y = test::run_case(c, inputs);
    EXPECT_TRUE(y.value().is_meta());
    EXPECT_EQ(y.dtype(), DType::f32);
    EXPECT_EQ(to_string(y.shape()), to_string(c.output.shape()));
    y.backward(Tensor::empty(y.shape(), DType::f32, kMeta));
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      ASSERT_TRUE(inputs[i].grad().defined());
      EXPECT_TRUE(inputs[i].grad().is_meta());
      EXPECT_EQ(inputs[i].grad().shape(), c.inputs[i].shape());
    }
  }
}

// ---- finite differences

// Golden inputs are multiples of 1/16; off that grid no kink and no tie is within a step.
Tensor off_the_grid(const Tensor& x, std::uint64_t seed) {
  const Tensor shift = test::random(x.shape(), DType::f64, seed, 0.002, 0.02);
  std::vector<double> y = x.to_doubles();
  const std::vector<double> b = shift.to_doubles();
  for (std::size_t i = 0; i < y.size(); ++i) y[i] += b[i];
  return Tensor::from(y, x.shape());
}

template <class F>
std::multiset<std::string> gradcheck_golden(const F& prepare) {
  std::multiset<std::string> checked;  // names of the ops
  for (const GoldenCase& c : golden()) {
    SCOPED_TRACE(c.text());
    if (largest(c.output) > 100)
      continue;  // exp(30) beside exp(0): differences of the sum lose the small ones
    if (c.args.value("padding", -1) >= 0)
      continue;  // by definition the gradient is not the derivative
    if (c.args.value("to", "f64") != "f64") continue;  // rounding makes steps of the differences
    std::vector<Var> inputs;
    for (std::size_t i = 0; i < c.inputs.size(); ++i)
      inputs.emplace_back(prepare(off_the_grid(c.inputs[i], i)), true);
    EXPECT_EQ(test::error_of([&] {
                gradcheck([&](std::span<const Var> x) { return test::run_case(c, x); }, inputs);
              }),
              "no error");
    checked.insert(c.op);
  }
  return checked;
}

TEST(GradcheckOps, EveryCaseAndEveryFunctionOfTheHeader) {
  std::multiset<std::string> checked = gradcheck_golden(as_it_is);
  EXPECT_GT(checked.size(), 200u);
  checked.insert("dropout");  // GradcheckOps.Dropout
  for (const std::string& name : test::public_functions("autograd/ops.h"))
    EXPECT_TRUE(checked.contains(name)) << name;
}
TEST(GradcheckOps, DimensionsInReverse) {
  EXPECT_GT(gradcheck_golden(test::reversed_order).size(), 200u);
}
TEST(GradcheckOps, EverySecondElement) {
  EXPECT_GT(gradcheck_golden(test::every_second).size(), 200u);
}

TEST(GradcheckOps, ChannelsLast) {
  const auto input = [](std::uint64_t seed) {
    return Var(test::random({2, 3, 4, 5}, DType::f64, seed).channels_last(), true);
  };
  const Var bias(test::random({3, 1, 1}, DType::f64, 7), true);
  const auto keeps = [&](const Var& y) { return y.value().is_channels_last(); };
  EXPECT_TRUE(keeps(tanh(input(1))));
  EXPECT_TRUE(keeps(mul(input(1), bias)));
  EXPECT_TRUE(keeps(add(input(1), input(2))));
  gradcheck([&](std::span<const Var> x) { return tanh(mul(x[0], x[2])) + square(x[1]); },
            {input(1), input(2), bias});
  gradcheck(
      [&](std::span<const Var> x) {
        return sum(x[0], {0, 2, 3}) * mean(x[1], {1, 2, 0}, keep);
      },
      {input(3), Var(test::random({2, 3, 4, 3}, DType::f64, 4).channels_last(), true)});
  gradcheck([&](std::span<const Var> x) { return softmax(x[0], 1); }, {input(5)});
  gradcheck([&](std::span<const Var> x) { return layer_norm(x[0], {5}, {}, {}); }, {input(6)});
  gradcheck([&](std::span<const Var> x) { return flatten(x[0], 1); }, {input(6)});
  gradcheck(
      [&](std::span<const Var> x) {
        return cat(std::vector<Var>{x[0], x[1]}, 1);
      },
      {input(6), input(7)});
  gradcheck([&](std::span<const Var> x) { return contiguous(x[0]); }, {input(8)});
}

TEST(GradcheckOps, SizesZeroAndOne) {
  const auto input = [](const Shape& shape) { return Var(test::random(shape, DType::f64), true); };
  const auto check = [](const std::function<Var(std::span<const Var>)>& fn,
                        std::vector<Var> inputs) {
    EXPECT_EQ(test::error_of([&] { gradcheck(fn, inputs); }), "no error");
    for (const Var& x : inputs) EXPECT_EQ(x.grad().shape(), x.shape());
  };
  for (const Shape& shape : {Shape{0}, Shape{}, Shape{1}, Shape{0, 3}, Shape{3, 0}, Shape{1, 1}}) {
    SCOPED_TRACE(to_string(shape));
    check([](auto x) { return relu(x[0]) + tanh(x[0]); }, {input(shape)});
    check([](auto x) { return x[0] * x[1]; }, {input(shape), input({})});
    check([](auto x) { return sum(x[0]); }, {input(shape)});
    check([](auto x) { return reshape(x[0], {-1}); },
          {numel(shape) > 0 ? input(shape) : input({1, 1})});
    check([](auto x) { return x[0] / x[1]; },
          {input(shape), Var(test::random({}, DType::f64, 1, 1, 2), true)});
  }
  check([](auto x) { return matmul(x[0], x[1]); }, {input({0, 3}), input({3, 2})});
  check([](auto x) { return matmul(x[0], x[1]); }, {input({2, 0}), input({0, 3})});
  check([](auto x) { return matmul(x[0], x[1]); }, {input({2, 3}), input({3, 0})});
  check([](auto x) { return matmul(x[0], x[1]); }, {input({2, 2, 0}), input({0, 3})});
  check([](auto x) { return linear(x[0], x[1], x[2], true); },
        {input({0, 3}), input({2, 3}), input({2})});
  check([](auto x) { return linear(x[0], x[1], x[2]); },
        {input({2, 0}), input({3, 0}), input({3})});
  check([](auto x) { return softmax(x[0], 1); }, {input({0, 3})});
  check([](auto x) { return softmax(x[0], 1); }, {input({3, 1})});
  check([](auto x) { return log_softmax(x[0], 0); }, {input({3, 0})});
  check([](auto x) { return layer_norm(x[0], {3}, x[1], x[2]); },
        {input({0, 3}), input({3}), input({3})});
  check([](auto x) { return layer_norm(x[0], {1}, x[1], x[2]); },
        {input({4, 1}), input({1}), input({1})});
  check([](auto x) { return cat(x, 0); }, {input({0, 2}), input({3, 2})});
  check([](auto x) { return slice(x[0], 0, 3, 0); }, {input({3})});
  check([](auto x) { return pad(x[0], {1, 1}); }, {input({0})});
  check([](auto x) { return embedding(Tensor::empty({0}, DType::i64), x[0]); }, {input({2, 3})});
  check(
      [](auto x) {
        return cross_entropy(x[0], Tensor::empty({0}, DType::i64), {.reduction = Reduction::sum});
      },
      {input({0, 3})});
  check([](auto x) { return mse_loss(x[0], x[1]); }, {input({1}), input({1})});
}

// The mask is the same function in forward and backward, so differences see a linear map.
TEST(GradcheckOps, Dropout) {
  gradcheck([](std::span<const Var> x) { return dropout(x[0], 0.4, 17) * x[0]; },
            {Var(test::random({4, 9}, DType::f64), true)});
  gradcheck([](std::span<const Var> x) { return dropout(x[0], 0.4, 17); },
            {Var(test::random({2, 3, 4, 2}, DType::f64).channels_last(), true)});
}

TEST(GradcheckOps, CastAndMixedChains) {
  gradcheck(
      [](std::span<const Var> x) {
        return sum(cast(x[0], DType::f64) * 3.0 - 1.0, -1, keep) / x[1];
      },
      {Var(test::random({3, 4}, DType::f64), true),
       Var(test::random({3, 1}, DType::f64, 1, 1, 2), true)});
  const Var x(test::random({5}, DType::f64), true);
  const Var y = cast(x, DType::f32);
  EXPECT_EQ(y.dtype(), DType::f32);
  sum(y * 2.0).backward();
  test::expect_close(x.grad(), Tensor::full({5}, 2, DType::f64), 0, 0);
}

// ---- errors name the op and both sides

TEST(OpErrors, Texts) {
  using test::error_of;
  const auto f32 = [](const Shape& shape) { return Var(Tensor::zeros(shape)); };
  const auto f64 = [](const Shape& shape) { return Var(Tensor::zeros(shape, DType::f64)); };
  const Tensor i64 = Tensor::zeros({2}, DType::i64);
  EXPECT_EQ(error_of([&] {
              matmul(f32({4, 8}), f32({7, 3}));
            }),
            "[matmul] inner sizes differ: [4, 8] x [7, 3]");
  EXPECT_EQ(error_of([&] { matmul(f32({}), f32({3})); }),
            "[matmul] needs at least one dimension: [] x [3]");
  EXPECT_EQ(error_of([&] {
              matmul(f32({2, 3}), f64({3, 2}));
            }),
            "[matmul] mixed dtypes: f32 [2, 3] and f64 [3, 2]; cast one of them");
  EXPECT_EQ(error_of([&] { matmul(Var(i64), Var(i64)); }),
            "[matmul] needs a floating dtype, got i64 [1, 2]; cast it first");
  EXPECT_EQ(error_of([&] { add(f32({2}), f64({2})); }),
            "[add] mixed dtypes: f32 [2] and f64 [2]; cast one of them");
  EXPECT_EQ(error_of([&] {
              mul(f32({2, 3}), f32({4}));
            }),
            "[mul] shapes [2, 3] and [4] do not broadcast: sizes 3 and 4 at dimension -1; sizes "
            "must be equal or 1");
  EXPECT_EQ(error_of([&] { exp(Var(i64)); }),
            "[exp] is not defined for i64; cast to a floating dtype first");
  EXPECT_EQ(error_of([&] { div(Var(i64), Var(i64)); }),
            "[div] is not defined for i64; cast to a floating dtype first");
  EXPECT_EQ(error_of([&] { where(i64, f32({2}), f32({2})); }),
            "[where] the condition must be u8, got i64 [2]");
  EXPECT_EQ(error_of([&] {
              linear(f32({2, 5}), f32({3, 4}));
            }),
            "[linear] the input [2, 5] does not fit the weight [3, 4] (out, in)");
  EXPECT_EQ(error_of([&] {
              linear(f32({2, 4}), f32({3, 4}), f32({4}));
            }),
            "[linear] the bias [4] does not fit the weight [3, 4] (out, in)");
  EXPECT_EQ(error_of([&] { sum(f32({2, 3}), Dims{2}); }), "[sum] dimension 2 is outside [-2, 2)");
  EXPECT_EQ(error_of([&] { sum(f32({2, 3}), Dims{1, -1}); }), "[sum] dimension 1 twice in [1, -1]");
  EXPECT_EQ(error_of([&] { amax(f32({0, 3}), Dims{0}); }), "[amax] of no elements: shape [0, 3]");
  EXPECT_EQ(error_of([&] { mean(Var(i64)); }),
            "[mean] needs a floating dtype, got i64 [2]; cast it first");
  EXPECT_EQ(error_of([&] {
              reshape(f32({2, 3}), {4});
            }),
            "[reshape] [2, 3] has 6 elements, [4] has 4");
  EXPECT_EQ(error_of([&] {
              cat(std::vector<Var>{f32({2, 3}), f32({3, 3})}, 1);
            }),
            "[cat] shapes [2, 3] and [3, 3] differ outside dimension 1");
  EXPECT_EQ(error_of([&] { cat({}, 1); }), "[cat] needs at least one tensor");
  EXPECT_EQ(error_of([&] {
              stack(std::vector<Var>{f32({2}), f32({3})}, 0);
            }),
            "[stack] shapes differ: [2] and [3]");
  EXPECT_EQ(error_of([&] { slice(f32({4}), 0, 2, 3); }),
            "[slice] 3 elements from 2 by 1 are outside dimension 0 of [4]");
  EXPECT_EQ(error_of([&] { select(f32({4}), 0, 4); }),
            "[select] index 4 is outside dimension 0 of [4]");
  EXPECT_EQ(error_of([&] { pad(f32({4}), {1}); }),
            "[pad] widths [1] are not a (left, right) pair for each of the last dimensions of [4]");
  EXPECT_EQ(error_of([&] {
              pad(f32({4}), {-3, -2});
            }),
            "[pad] widths [-3, -2] cut more than dimension 0 of [4] has");
  EXPECT_EQ(error_of([&] { softmax(Var(i64), 0); }),
            "[softmax] needs a floating dtype, got i64 [2]; cast it first");
  EXPECT_EQ(error_of([&] {
              layer_norm(f32({2, 3}), {2}, {}, {});
            }),
            "[layer_norm] the last dimensions of [2, 3] are not [2]");
  EXPECT_EQ(error_of([&] {
              layer_norm(f32({2, 3}), {3}, f32({2}), {});
            }),
            "[layer_norm] weight and bias must have shape [3], got [2]");
  EXPECT_EQ(error_of([&] {
              // On a GPU the index is found when somebody waits for the values.
              embedding(Tensor::from(std::vector<std::int64_t>{0, 5}, {2}), f32({5, 3}))
                  .value()
                  .to_doubles();
            }),
            "[embedding] index 5 at position 1 is outside [0, 5)");
  EXPECT_EQ(error_of([&] {
              embedding(Tensor::zeros({2}), f32({5, 3}));
            }),
            "[embedding] indices must be i64, got f32 [2]");
  EXPECT_EQ(error_of([&] { dropout(f32({2}), 1.5, 0); }),
            "[dropout] the probability must lie in [0, 1], got 1.5");
  EXPECT_EQ(error_of([&] { mse_loss(f32({2}), f32({3})); }),
            "[mse_loss] shapes differ: [2] and [3]");
  EXPECT_EQ(error_of([&] { Var(i64, true); }),
            "[var] only floating values have gradients, got i64 [2]");
}

TEST(OpErrors, CrossEntropyTargets) {
  using test::error_of;
  const Var logits(Tensor::zeros({4, 10}));
  const auto targets = [](std::vector<std::int64_t> t) {
    const auto n = static_cast<std::int64_t>(t.size());
    return Tensor::from(t, {n});
  };
  EXPECT_EQ(error_of([&] {
              cross_entropy(logits, targets({1, 2, 3, 12})).value().to_doubles();
            }),
            "[cross_entropy] target 12 at index 3 is outside [0, 10)");
  EXPECT_EQ(error_of([&] {
              cross_entropy(logits, targets({1, -1, 3, 2})).value().to_doubles();
            }),
            "[cross_entropy] target -1 at index 1 is outside [0, 10)");
  EXPECT_EQ(error_of([&] {
              cross_entropy(logits, targets({1, 2, 3}));
            }),
            "[cross_entropy] targets [3] do not fit logits [4, 10]: expected [4]");
  EXPECT_EQ(error_of([&] { cross_entropy(logits, Tensor::zeros({4}, DType::i32)); }),
            "[cross_entropy] targets must be i64 or class probabilities, got i32 [4]");
  EXPECT_EQ(error_of([&] {
              cross_entropy(logits, Tensor::zeros({4, 9}));
            }),
            "[cross_entropy] class probabilities f32 [4, 9] must be as the logits f32 [4, 10]");
  EXPECT_EQ(error_of([&] {
              cross_entropy(logits, targets({1, 2, 3, 4}), {.label_smoothing = 1.5});
            }),
            "[cross_entropy] label smoothing must lie in [0, 1], got 1.5");
  // All ignored: 0 / 0, as in PyTorch. Another ignore_index may be any number.
  EXPECT_TRUE(std::isnan(cross_entropy(logits, targets({-100, -100, -100, -100})).item()));
  EXPECT_NEAR(cross_entropy(logits, targets({77, 1, 77, 2}), {.ignore_index = 77}).item(),
              std::log(10.0), 1e-6);
}

}  // namespace
}  // namespace sg
