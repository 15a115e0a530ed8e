// Image ops against PyTorch's values and against finite differences, over dtypes, memory layouts
// and devices.
#include "autograd/conv.h"

#include <gtest/gtest.h>

#include "autograd/checkpoint.h"
#include "autograd/gradcheck.h"
#include "autograd/ops.h"
#include "core/ops.h"
#include "tests/autograd/golden_ops.h"
#include "tests/support/testing.h"

namespace sg {
namespace {

using test::GoldenCase;
using test::random;
using Pair = std::array<std::int64_t, 2>;

Conv2dOptions conv_options(const nlohmann::json& a) {
  return {a.at("stride").get<Pair>(), a.at("padding").get<Pair>(), a.at("dilation").get<Pair>(),
          a.at("groups").get<std::int64_t>(), a.at("relu").get<bool>()};
}

Pool2dOptions pool_options(const nlohmann::json& a) {
  return {a.at("kernel").get<Pair>(), a.at("stride").get<Pair>(), a.at("padding").get<Pair>()};
}

Tensor channel_values(const nlohmann::json& a, const char* name, DType dtype) {
  const auto values = a.at(name).get<std::vector<double>>();
  return Tensor::from(values, {static_cast<std::int64_t>(values.size())}).to(dtype);
}

// The running statistics that batch_norm leaves are compared as well.
Var run_case(const GoldenCase& c, std::span<const Var> x, double rtol, double atol) {
  const auto input = [&](std::size_t i) { return i < x.size() ? x[i] : Var(); };
  const nlohmann::json& a = c.args;
  if (c.op == "conv2d") return conv2d(x[0], x[1], input(2), conv_options(a));
  if (c.op == "conv2d_relu_max_pool2d")
    return conv2d_relu_max_pool2d(x[0], x[1], input(2), conv_options(a), {.kernel = {2, 2}});
  if (c.op == "max_pool2d") return max_pool2d(x[0], pool_options(a));
  if (c.op == "avg_pool2d") return avg_pool2d(x[0], pool_options(a));
  if (c.op == "global_avg_pool2d") return global_avg_pool2d(x[0]);
  SG_CHECK(c.op == "batch_norm", "[test] unknown op {}", c.op);
  const DType dtype = x[0].dtype() == DType::f64 ? DType::f64 : DType::f32;
  const Tensor mean = channel_values(a, "running_mean", dtype),
               var = channel_values(a, "running_var", dtype);
  const Var y = batch_norm(x[0], input(1), input(2), mean, var, a.at("training"), a.at("momentum"),
                           a.at("eps"), a.at("relu"));
  test::expect_close(mean, channel_values(a, "mean_after", DType::f64), rtol, atol);
  test::expect_close(var, channel_values(a, "var_after", DType::f64), rtol, atol);
  return y;
}

template <class F>
void compare_with_golden(DType dtype, double rtol, double atol, const F& prepare) {
  for (const GoldenCase& c : test::load_golden("conv.json")) {
    SCOPED_TRACE(c.text());
    // Rounded to 8 bits, several values of a window are equal where they were not before: another
    // one is the first.
    if (size_of(dtype) == 2 && c.op == "conv2d_relu_max_pool2d") continue;
    std::vector<Var> inputs;
    for (const Tensor& x : c.inputs) inputs.emplace_back(prepare(x.to(dtype)), true);
    const Var y = run_case(c, inputs, rtol, atol);
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
Tensor channels_last(const Tensor& x) { return x.dim_count() == 4 ? x.channels_last() : x; }

TEST(GoldenConv, EveryFunctionOfTheHeaderHasACase) {
  std::set<std::string> names;
  for (const GoldenCase& c : test::load_golden("conv.json")) names.insert(c.op);
  const std::set<std::string> functions = test::public_functions("autograd/conv.h");
  EXPECT_TRUE(functions.contains("batch_norm")) << "the header is not read as it is written";
  for (const std::string& name : functions)
    EXPECT_TRUE(names.contains(name)) << name << " has no case in tests/golden/conv.py";
}

TEST(GoldenConv, F64) { compare_with_golden(DType::f64, 1e-11, 1e-11, as_it_is); }
TEST(GoldenConv, F64ChannelsLast) { compare_with_golden(DType::f64, 1e-11, 1e-11, channels_last); }
TEST(GoldenConv, F64DimensionsInReverse) {
  compare_with_golden(DType::f64, 1e-11, 1e-11, test::reversed_order);
}
TEST(GoldenConv, F64EverySecondElement) {
  compare_with_golden(DType::f64, 1e-11, 1e-11, test::every_second);
}
TEST(GoldenConv, F32) { compare_with_golden(DType::f32, 3e-6, 2e-5, as_it_is); }
TEST(GoldenConv, F32ChannelsLast) { compare_with_golden(DType::f32, 3e-6, 2e-5, channels_last); }
TEST(GoldenConv, F32DimensionsInReverse) {
  compare_with_golden(DType::f32, 3e-6, 2e-5, test::reversed_order);
}
TEST(GoldenConv, F32EverySecondElement) {
  compare_with_golden(DType::f32, 3e-6, 2e-5, test::every_second);
}
TEST(GoldenConv, BF16) { compare_with_golden(DType::bf16, 0x1p-7, 0x1p-4, as_it_is); }
TEST(GoldenConv, F16) { compare_with_golden(DType::f16, 0x1p-10, 0x1p-7, channels_last); }

// ---- gradcheck

std::vector<Var> leaves(std::initializer_list<Shape> shapes) {
  std::vector<Var> list;
  for (const Shape& shape : shapes)
    list.emplace_back(random(shape, DType::f64, list.size() + 1), true);
  return list;
}

TEST(GradcheckConv, Conv2dWithEveryOption) {
  for (const bool relu : {false, true})
    for (const Conv2dOptions& o :
         {Conv2dOptions{.relu = relu},
          Conv2dOptions{.stride = {2, 1}, .padding = {1, 2}, .relu = relu},
          Conv2dOptions{.padding = {1, 1}, .dilation = {2, 1}, .relu = relu},
          Conv2dOptions{.stride = {1, 2}, .groups = 2, .relu = relu}}) {
      const auto inputs = leaves({{2, 4, 5, 6}, {4, 4 / o.groups, 3, 2}, {4}});
      gradcheck([&](std::span<const Var> x) { return conv2d(x[0], x[1], x[2], o); }, inputs);
      gradcheck([&](std::span<const Var> x) { return conv2d(x[0], x[1], {}, o); },
                {inputs[0], inputs[1]});
    }
}

TEST(GradcheckConv, Conv2dReluMaxPool2d) {
  gradcheck(
      [](std::span<const Var> x) {
        return conv2d_relu_max_pool2d(x[0], x[1], x[2], {.padding = {1, 1}}, {.kernel = {2, 2}});
      },
      leaves({{2, 2, 5, 6}, {3, 2, 3, 3}, {3}}));
}

TEST(GradcheckConv, Pooling) {
  const Pool2dOptions options[] = {{},
                                   {.kernel = {3, 2}, .stride = {2, 1}, .padding = {1, 1}},
                                   {.kernel = {3, 3}, .stride = {1, 1}}};
  for (const Pool2dOptions& o : options) {
    gradcheck([&](std::span<const Var> x) { return max_pool2d(x[0], o); }, leaves({{2, 3, 5, 6}}));
    gradcheck([&](std::span<const Var> x) { return avg_pool2d(x[0], o); }, leaves({{2, 3, 5, 6}}));
  }
  gradcheck([](std::span<const Var> x) { return global_avg_pool2d(x[0]); }, leaves({{2, 3, 3, 4}}));
}

TEST(GradcheckConv, BatchNorm) {
  const Tensor mean = random({3}, DType::f64, 7), var = random({3}, DType::f64, 8, 0.5, 2);
  for (const Shape& shape : {Shape{3, 3, 2, 4}, Shape{5, 3}})
    for (const bool training : {true, false})
      for (const bool relu : {false, true})
        gradcheck(
            [&](std::span<const Var> x) {
              // Copies: every evaluation moves the running statistics.
              return batch_norm(x[0], x[1], x[2], mean.clone(), var.clone(), training, 0.1, 1e-5,
                                relu);
            },
            leaves({shape, {3}, {3}}));
}

// ---- which gradients are asked for

TEST(Conv, FrozenParametersAndInputs) {
  const Tensor x = random({2, 3, 12, 12}, DType::f32, 1), w = random({6, 3, 5, 5}, DType::f32, 2);
  const Tensor b = random({6}, DType::f32, 3);
  const auto gradients = [&](bool of_x, bool of_w, bool of_b, bool pooled) {
    const std::vector<Var> v{{x, of_x}, {w, of_w}, {b, of_b}};
    const Var y = pooled ? conv2d_relu_max_pool2d(v[0], v[1], v[2], {}, {})
                         : conv2d(v[0], v[1], v[2], {.relu = true});
    y.backward(Tensor::full(y.shape(), 1));
    return v;
  };
  for (const bool pooled : {false, true}) {
    const std::vector<Var> all = gradients(true, true, true, pooled);
    for (int mask = 1; mask < 7; ++mask) {
      const std::vector<Var> some = gradients(mask & 1, mask & 2, mask & 4, pooled);
      for (int i = 0; i < 3; ++i) {
        const auto k = static_cast<std::size_t>(i);
        ASSERT_EQ(some[k].grad().defined(), (mask >> i & 1) != 0);
        if (some[k].grad().defined()) test::expect_close(some[k].grad(), all[k].grad(), 1e-5, 1e-5);
      }
    }
  }
}

// A sink that offers the final place of a gradient.
struct Place final : GradSink {
  Tensor place;
  Tensor got;
  Tensor target(const VarImpl&) override { return place; }
  void ready(VarImpl&, const Tensor& gradient) override { got = gradient; }
};

TEST(Conv, GradientsAreWrittenWhereTheSinkWantsThem) {
  for (const Shape& x_shape : {Shape{2, 3, 12, 12}, Shape{2, 16, 6, 6}}) {
    const bool few = x_shape[1] == 3;
    const Shape w_shape = few ? Shape{6, 3, 5, 5} : Shape{16, 16, 3, 3};
    const Var x(random(x_shape, DType::f32, 1));
    const Var w(random(w_shape, DType::f32, 2), true), b(random({w_shape[0]}, DType::f32, 3), true);
    const auto of_w = std::make_shared<Place>(), of_b = std::make_shared<Place>();
    // A place is overwritten, whatever it held.
    of_w->place = Tensor::full(w_shape, 1e30);
    of_b->place = Tensor::full({w_shape[0]}, 1e30);
    w.impl().sink = of_w;
    b.impl().sink = of_b;
    const Var y = conv2d(x, w, b);
    y.backward(Tensor::full(y.shape(), 1));
    EXPECT_EQ(of_w->got.raw_data(), of_w->place.raw_data());
    EXPECT_EQ(of_b->got.raw_data(), of_b->place.raw_data());
    test::expect_close(
        of_b->got, Tensor::full({w_shape[0]}, static_cast<double>(y.value().numel() / w_shape[0])),
        1e-6, 0);
    const Var same(w.value(), true);
    const Var again = conv2d(x, same, b);
    again.backward(Tensor::full(y.shape(), 1));
    test::expect_same_bits(of_w->got, same.grad());
  }
}

// ---- fused against separate

TEST(Conv, FusedPoolingGivesTheBitsOfItsParts) {
  struct {
    Shape x, w;
    std::int64_t padding;
  } const cases[] = {{{3, 3, 14, 18}, {6, 3, 5, 5}, 0},
                     {{3, 6, 14, 14}, {16, 6, 5, 5}, 0},
                     {{2, 32, 9, 8}, {32, 32, 3, 3}, 1},
                     {{2, 24, 8, 8}, {40, 24, 3, 3}, 1}};
  for (const auto& c : cases) {
    const Tensor x = random(c.x, DType::f32, 1), w = random(c.w, DType::f32, 2),
                 b = random({c.w[0]}, DType::f32, 3);
    const Conv2dOptions o{.padding = {c.padding, c.padding}};
    const Conv2dOptions relu{.padding = {c.padding, c.padding}, .relu = true};
    const std::vector<Var> v{{x, true}, {w, true}, {b, true}}, u{{x, true}, {w, true}, {b, true}};
    const Var fused = conv2d_relu_max_pool2d(v[0], v[1], v[2], o, {});
    const Var parts = max_pool2d(conv2d(u[0], u[1], u[2], relu), {});
    ASSERT_TRUE(ops::conv2d_relu_max_pool2d_is_fused(c.x, c.w, DType::f32, o, {}));
    test::expect_same_bits(fused.value(), parts.value());
    const Tensor seed = random(fused.shape(), DType::f32, 4);
    fused.backward(seed);
    parts.backward(seed);
    for (std::size_t i = 0; i < 3; ++i) test::expect_close(v[i].grad(), u[i].grad(), 1e-5, 1e-4);
  }
}

TEST(Conv, FusedReluGivesTheBitsOfItsParts) {
  for (const std::int64_t channels : {3, 16, 24}) {
    const std::vector<Var> v{{random({2, channels, 8, 8}, DType::f32, 1), true},
                             {random({16, channels, 3, 3}, DType::f32, 2), true},
                             {random({16}, DType::f32, 3), true}};
    const std::vector<Var> u{{v[0].value(), true}, {v[1].value(), true}, {v[2].value(), true}};
    const Var fused = conv2d(v[0], v[1], v[2], {.padding = {1, 1}, .relu = true});
    const Var parts = relu(conv2d(u[0], u[1], u[2], {.padding = {1, 1}}));
    test::expect_same_bits(fused.value(), parts.value());
    const Tensor seed = random(fused.shape(), DType::f32, 4);
    fused.backward(seed);
    parts.backward(seed);
    for (std::size_t i = 0; i < 3; ++i) test::expect_same_bits(v[i].grad(), u[i].grad());
  }
}

// ---- ties, NaN

TEST(MaxPool, TheFirstOfEqualMaximaGetsTheGradient) {
  for (const bool last : {false, true})
    for (const std::int64_t channels : {1, 3, 32}) {
      Tensor t = Tensor::full({1, channels, 4, 4}, 2);
      if (last) t = t.channels_last();
      const Var x(t, true);
      const Var y = max_pool2d(x, {});
      y.backward(Tensor::full(y.shape(), 3));
      for (std::int64_t i = 0; i < 16; ++i) {
        const bool first = i / 4 % 2 == 0 && i % 4 % 2 == 0;
        EXPECT_EQ(x.grad().select(1, channels - 1).reshape({16}).slice(0, i, 1).item(),
                  first ? 3 : 0)
            << i;
      }
    }
}

TEST(MaxPool, NanWins) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor x = Tensor::from(std::vector<float>{1, nan, 5, 2, nan, 7, 3, 9}, {1, 2, 2, 2});
  for (const Tensor& t : {x, x.channels_last()}) {
    const Var y = max_pool2d(Var(t), {});
    EXPECT_TRUE(std::isnan(y.value().to_doubles()[0]));
    EXPECT_TRUE(std::isnan(y.value().to_doubles()[1]));
  }
}

// ---- meta, determinism, threads

struct Op {
  const char* name;
  std::function<Var(std::span<const Var>)> f;
  std::vector<Shape> shapes;
};

std::vector<Op> every_op() {
  const Conv2dOptions same{.padding = {1, 1}, .relu = true};
  return {
      {"conv2d winograd",
       [=](auto x) { return conv2d(x[0], x[1], x[2], same); },
       {{5, 32, 9, 10}, {48, 32, 3, 3}, {48}}},
      {"conv2d direct",
       [=](auto x) { return conv2d(x[0], x[1], x[2], same); },
       {{5, 20, 9, 10}, {40, 20, 3, 3}, {40}}},
      {"conv2d strided",
       [](auto x) {
         return conv2d(x[0], x[1], x[2], {.stride = {2, 2}});
       },
       {{5, 16, 9, 10}, {32, 16, 1, 1}, {32}}},
      {"conv2d groups",
       [](auto x) { return conv2d(x[0], x[1], x[2], {.groups = 8}); },
       {{5, 16, 9, 10}, {16, 2, 3, 3}, {16}}},
      {"conv2d pixels",
       [](auto x) { return conv2d(x[0], x[1], x[2]); },
       {{5, 3, 20, 20}, {6, 3, 5, 5}, {6}}},
      {"pooled pixels",
       [](auto x) { return conv2d_relu_max_pool2d(x[0], x[1], x[2], {}, {}); },
       {{5, 3, 20, 20}, {6, 3, 5, 5}, {6}}},
      {"pooled direct",
       [](auto x) { return conv2d_relu_max_pool2d(x[0], x[1], x[2], {}, {}); },
       {{5, 6, 14, 14}, {16, 6, 5, 5}, {16}}},
      {"pooled winograd",
       [=](auto x) { return conv2d_relu_max_pool2d(x[0], x[1], x[2], same, {}); },
       {{5, 16, 8, 8}, {32, 16, 3, 3}, {32}}},
      {"max_pool2d",
       [](auto x) {
         return max_pool2d(x[0], {.kernel = {3, 3}, .stride = {2, 2}});
       },
       {{5, 6, 14, 14}}},
      {"avg_pool2d", [](auto x) { return avg_pool2d(x[0], {}); }, {{5, 6, 14, 14}}},
      {"global_avg_pool2d", [](auto x) { return global_avg_pool2d(x[0]); }, {{5, 32, 14, 14}}},
      {"batch_norm",
       [](auto x) { return batch_norm(x[0], x[1], x[2], {}, {}, true, 0.1, 1e-5, true); },
       {{15, 24, 30, 30}, {24}, {24}}},
  };
}

struct Result {
  Tensor y;
  std::vector<Tensor> grads;
};

Result run(const Op& op, bool last, Device device = kCpu) {
  std::vector<Var> inputs;
  for (const Shape& shape : op.shapes) {
    Tensor t = device.is_meta() ? Tensor::empty(shape, DType::f32, device)
                                : random(shape, DType::f32, inputs.size() + 1);
    if (last && shape.size() == 4 && inputs.empty()) t = t.channels_last();
    inputs.emplace_back(t, true);
  }
  const Var y = op.f(inputs);
  y.backward(device.is_meta() ? Tensor::empty(y.shape(), DType::f32, device)
                              : random(y.shape(), DType::f32, 9));
  Result result{y.value(), {}};
  for (const Var& input : inputs) result.grads.push_back(input.grad());
  return result;
}

TEST(Conv, MetaHasTheShapesAndLayoutsOfTheDevice) {
  for (const Op& op : every_op())
    for (const bool last : {false, true}) {
      SCOPED_TRACE(op.name);
      const Result cpu = run(op, last), meta = run(op, last, kMeta);
      EXPECT_EQ(cpu.y.shape(), meta.y.shape());
      EXPECT_EQ(cpu.y.strides(), meta.y.strides());
      for (std::size_t i = 0; i < cpu.grads.size(); ++i) {
        EXPECT_EQ(cpu.grads[i].shape(), meta.grads[i].shape());
        EXPECT_EQ(cpu.grads[i].strides(), meta.grads[i].strides());
      }
    }
}

TEST(Conv, RepeatedRunsHaveEqualBits) {
  for (const int threads : {1, 2, 3})
    test::with_threads(threads, [] {
      for (const Op& op : every_op())
        for (const bool last : {false, true}) {
          SCOPED_TRACE(op.name);
          const Result a = run(op, last);
          // Other sizes of free memory before the second run: its buffers lie elsewhere.
          const Tensor hole = Tensor::empty({4099}, DType::f32, kCpu);
          const Result b = run(op, last);
          test::expect_same_bits(a.y, b.y);
          for (std::size_t i = 0; i < a.grads.size(); ++i)
            test::expect_same_bits(a.grads[i], b.grads[i]);
        }
    });
}

TEST(Conv, ThreadsChangeOnlyRounding) {
  for (const Op& op : every_op()) {
    SCOPED_TRACE(op.name);
    Result one, two;
    test::with_threads(1, [&] { one = run(op, false); });
    test::with_threads(2, [&] { two = run(op, false); });
    test::expect_close(one.y, two.y, 1e-5, 1e-5);
    for (std::size_t i = 0; i < one.grads.size(); ++i)
      test::expect_close(one.grads[i], two.grads[i], 1e-5, 1e-4);
  }
}

TEST(Conv, EmptyBatches) {
  for (const Op& op : every_op()) {
    if (std::string_view(op.name) == "batch_norm") continue;
    SCOPED_TRACE(op.name);
    Op empty = op;
    empty.shapes[0][0] = 0;
    const Result r = run(empty, false);
    EXPECT_EQ(r.y.shape()[0], 0);
    EXPECT_EQ(r.grads[0].shape()[0], 0);
    for (std::size_t i = 1; i < r.grads.size(); ++i)
      test::expect_close(r.grads[i], Tensor::zeros(op.shapes[i]), 0, 0);
  }
}

// ---- batch norm's running statistics

TEST(BatchNorm, RecomputationMovesNoRunningStatistics) {
  const Tensor mean = Tensor::zeros({3}), var = Tensor::full({3}, 1);
  const Var x(random({4, 3, 5, 5}, DType::f32, 1), true), w(random({3}, DType::f32, 2), true),
      b(random({3}, DType::f32, 3), true);
  const auto norm = [&](const Var& v) { return batch_norm(v, w, b, mean, var, true, 0.5); };
  const Var y = checkpoint(norm, x);
  const Tensor mean_once = mean.clone(), var_once = var.clone();
  y.backward(Tensor::full(y.shape(), 1));
  test::expect_same_bits(mean, mean_once);
  test::expect_same_bits(var, var_once);
  const Tensor unmoved = Tensor::zeros({3});
  const Var meta =
      batch_norm(Var(Tensor::empty({4, 3, 5, 5}, DType::f32, kMeta)), {}, {}, unmoved, {}, true);
  EXPECT_EQ(meta.shape(), (Shape{4, 3, 5, 5}));
  test::expect_close(unmoved, Tensor::zeros({3}), 0, 0);
}

TEST(BatchNorm, SurvivesAMeanFarFromZero) {
  // f32 has 7 digits: a naive difference of squares would lose all of a deviation of 1 at a mean of
  // 10000.
  const Tensor noise = random({8, 4, 16, 16}, DType::f64, 1, -1.75, 1.75);
  for (const bool last : {false, true}) {
    Tensor x = Tensor::empty(noise.shape(), DType::f64);
    x.fill(10000);
    x = ops::add(x, noise).to(DType::f32);
    if (last) x = x.channels_last();
    const Tensor exact = batch_norm(Var(x.to(DType::f64)), {}, {}, {}, {}, true).value();
    test::expect_close(batch_norm(Var(x), {}, {}, {}, {}, true).value(), exact, 1e-3, 1e-3);
  }
}

// ---- error texts

TEST(Conv, ErrorsSayWhatDoesNotFit) {
  const auto t = [](Shape shape) { return Var(Tensor::zeros(shape)); };
  using test::error_of;
  EXPECT_EQ(error_of([&] {
              conv2d(t({1, 4, 8, 8}), t({6, 3, 5, 5}));
            }),
            "[conv2d] input has 4 channels, weight [6, 3, 5, 5] with groups 1 wants 3");
  EXPECT_EQ(error_of([&] {
              conv2d(t({4, 8, 8}), t({6, 3, 5, 5}));
            }),
            "[conv2d] input [4, 8, 8] is not [N, C, H, W]");
  EXPECT_EQ(error_of([&] {
              conv2d(t({1, 3, 8, 8}), t({6, 3, 5, 5}), t({5}));
            }),
            "[conv2d] bias [5] does not fit weight [6, 3, 5, 5]; expected [6]");
  EXPECT_EQ(error_of([&] {
              conv2d(t({1, 3, 4, 8}), t({6, 3, 5, 5}));
            }),
            "[conv2d] the kernel of weight [6, 3, 5, 5] spans 5 in dimension 2, more than input "
            "[1, 3, 4, 8] with "
            "padding 0 has: 4");
  EXPECT_EQ(error_of([&] {
              conv2d(t({1, 4, 8, 8}), t({6, 2, 3, 3}), {}, {.groups = 4});
            }),
            "[conv2d] weight [6, 2, 3, 3] has 6 output channels, not divisible by groups 4");
  EXPECT_EQ(
      error_of([&] {
        conv2d(t({1, 3, 8, 8}), t({6, 3, 5, 5}), {}, {.stride = {0, 1}});
      }),
      "[conv2d] stride [0, 1] and dilation [1, 1] must be at least 1, padding [0, 0] at least 0");
  EXPECT_EQ(error_of([&] {
              conv2d(t({1, 3, 8, 8}), Var(Tensor::zeros({6, 3, 5, 5}, DType::f64)));
            }),
            "[conv2d] mixed dtypes: f32 [1, 3, 8, 8] and f64 [6, 3, 5, 5]; cast one of them");
  EXPECT_EQ(
      error_of([&] {
        max_pool2d(t({1, 3, 4, 4}), {.kernel = {5, 2}});
      }),
      "[max_pool2d] kernel 5 in dimension 2 is more than input [1, 3, 4, 4] with padding 0 has: 4");
  EXPECT_EQ(error_of([&] {
              avg_pool2d(t({1, 3, 4, 4}), {.kernel = {2, 2}, .padding = {2, 0}});
            }),
            "[avg_pool2d] padding [2, 0] must be between 0 and half the kernel [2, 2]");
  EXPECT_EQ(error_of([&] {
              global_avg_pool2d(t({3, 4, 4}));
            }),
            "[global_avg_pool2d] input [3, 4, 4] is not [N, C, H, W]");
  EXPECT_EQ(error_of([&] {
              batch_norm(t({2, 3, 4, 4}), t({4}), {}, {}, {}, true);
            }),
            "[batch_norm] weight is [4], expected [3]");
  EXPECT_EQ(error_of([&] {
              batch_norm(t({1, 3}), {}, {}, {}, {}, true);
            }),
            "[batch_norm] training needs more than one value a channel, got input [1, 3]");
  EXPECT_EQ(error_of([&] {
              batch_norm(t({2, 3}), {}, {}, {}, {}, false);
            }),
            "[batch_norm] inference needs running_mean and running_var; without them use training "
            "= true");
}

}  // namespace
}  // namespace sg
