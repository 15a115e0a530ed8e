// The list of layers: each is compared with PyTorch (tests/golden/nn.py) forward and backward in
// f64 and f32, and with finite differences. A new layer is one row here and one in that script.
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "autograd/gradcheck.h"
#include "nn/nn.h"
#include "tests/nn/support.h"

namespace sg::nn {
namespace {

using Inputs = std::vector<Var>;

struct Row {
  const char* name;
  std::function<ModulePtr()> make;
  std::function<Var(Module&, const Inputs&)> run = [](Module& m, const Inputs& x) {
    return m(x[0]);
  };
  bool derivative = true;  ///< its gradient is the derivative, not by definition something else
};

ModulePtr evaluated(ModulePtr module) {
  module->eval();
  return module;
}

// A loss is no Module: it runs behind one without parameters.
template <class F>
Row loss(const char* name, F f) {
  return {.name = name,
          .make = [] { return share(Identity()); },
          .run = [f](Module&, const Inputs& x) { return f(x[0], x[1]); }};
}

const std::vector<Row>& rows() {
  static const std::vector<Row> list = {
      {"linear", [] { return share(Linear(5, 3)); }},
      {"linear_no_bias", [] { return share(Linear(5, 3, false)); }},
      {"conv2d", [] { return share(Conv2d(3, 4, 3)); }},
      {"conv2d_all",
       [] {
         return share(Conv2d(4, 6, {3, 2},
                             {.stride = {2, 1},
                              .padding = {1, 2},
                              .dilation = {1, 2},
                              .groups = 2,
                              .bias = false}));
       }},
      {"max_pool2d", [] { return share(MaxPool2d(2)); }},
      {"max_pool2d_all",
       [] {
         return share(MaxPool2d({3, 2}, {.stride = {2, 1}, .padding = {1, 1}}));
       }},
      {"avg_pool2d", [] { return share(AvgPool2d(3, {.stride = 2, .padding = 1})); }},
      {"adaptive_avg_pool2d", [] { return share(AdaptiveAvgPool2d(1)); }},
      {"batch_norm2d", [] { return share(BatchNorm2d(3)); }},
      {"batch_norm2d_eval", [] { return evaluated(share(BatchNorm2d(3))); }},
      {"batch_norm2d_options",
       [] { return share(BatchNorm2d(3, {.eps = 1e-3, .momentum = 0.3, .affine = false})); }},
      {"batch_norm2d_untracked",
       [] { return evaluated(share(BatchNorm2d(3, {.track_running_stats = false}))); }},
      {"layer_norm", [] { return share(LayerNorm(6)); }},
      {"layer_norm_2d",
       [] {
         return share(LayerNorm(Shape{3, 4}, {.eps = 1e-3}));
       }},
      {"layer_norm_plain", [] { return share(LayerNorm(6, {.elementwise_affine = false})); }},
      {"layer_norm_no_bias", [] { return share(LayerNorm(6, {.bias = false})); }},
      {"embedding", [] { return share(Embedding(7, 3)); }},
      {.name = "embedding_padding",
       .make = [] { return share(Embedding(7, 3, 2)); },
       .derivative = false},
      {"flatten", [] { return share(Flatten()); }},
      {"flatten_some", [] { return share(Flatten(0, 1)); }},
      {"dropout_eval", [] { return evaluated(share(Dropout(0.5))); }},
      {"relu", [] { return share(ReLU()); }},
      {"gelu", [] { return share(GELU()); }},
      {"gelu_tanh", [] { return share(GELU(true)); }},
      {"silu", [] { return share(SiLU()); }},
      {"tanh", [] { return share(Tanh()); }},
      {"sigmoid", [] { return share(Sigmoid()); }},
      {"leaky_relu", [] { return share(LeakyReLU(0.2)); }},
      {"elu", [] { return share(ELU()); }},
      {"softplus", [] { return share(Softplus()); }},
      {"softmax", [] { return share(Softmax(1)); }},
      {"log_softmax", [] { return share(LogSoftmax(1)); }},
      {"identity", [] { return share(Identity()); }},
      {"sequential",
       [] {
         return share(sequential(Conv2d(3, 4, 3), ReLU(), MaxPool2d(2), Flatten(), Linear(24, 5),
                                 ReLU(), Linear(5, 2)));
       }},
      {"sequential_norm",
       [] { return share(sequential(Conv2d(3, 4, 3, {.bias = false}), BatchNorm2d(4), ReLU())); }},
      loss("cross_entropy",
           [](const Var& x, const Var& t) { return CrossEntropyLoss()(x, t.value()); }),
      loss("cross_entropy_all",
           [](const Var& x, const Var& t) {
             return CrossEntropyLoss(
                 {.reduction = Reduction::sum, .ignore_index = 1, .label_smoothing = 0.1})(
                 x, t.value());
           }),
      loss("mse", [](const Var& x, const Var& t) { return MSELoss()(x, t); }),
      loss("mse_none", [](const Var& x, const Var& t) { return MSELoss(Reduction::none)(x, t); }),
  };
  return list;
}

const SafetensorsFile& golden() {
  static const SafetensorsFile file(std::string(SG_TEST_DATA) + "/nn_layers.safetensors");
  return file;
}

// Every element within `tolerance` times the largest of the golden tensor (at least 1).
void expect_near(const Tensor& got, const std::string& key, double tolerance) {
  SCOPED_TRACE(key);
  const Tensor expected = golden().read(key);
  ASSERT_TRUE(got.defined());
  ASSERT_EQ(got.shape(), expected.shape());
  const std::vector<double> a = got.to_doubles(), b = expected.to_doubles();
  double scale = 1;
  for (const double v : b) scale = std::max(scale, std::abs(v));
  for (std::size_t i = 0; i < a.size(); ++i)
    ASSERT_NEAR(a[i], b[i], tolerance * scale) << "element " << i;
}

class Layer : public ::testing::TestWithParam<std::size_t> {
 protected:
  const Row& row() const { return rows()[GetParam()]; }
  std::string key(const std::string& what) const { return std::string(row().name) + "/" + what; }

  // The layer with the golden parameters and buffers.
  ModulePtr make(DType dtype) const {
    ModulePtr module = row().make();
    module->to(dtype);
    for (const NamedParameter& p : module->named_parameters())
      p.parameter.attach(golden().read(key("parameter/" + p.name)).to(dtype));
    for (const NamedBuffer& b : module->named_buffers())
      b.buffer.value().copy_from(golden().read(key("start/" + b.name)));
    return module;
  }
  Inputs inputs(DType dtype) const {
    Inputs inputs;
    for (int i = 0; golden().contains(key(fmt::format("x{}", i))); ++i) {
      const Tensor x = golden().read(key(fmt::format("x{}", i)));
      const bool floating = is_floating(x.dtype());
      inputs.emplace_back(floating ? x.to(dtype) : x, floating && i == 0);
    }
    return inputs;
  }
  void compare(DType dtype, double tolerance) const {
    const ModulePtr module = make(dtype);
    const Inputs x = inputs(dtype);
    const Var y = row().run(*module, x);
    expect_near(y.value(), key("y"), tolerance);
    const Tensor dy = golden().read(key("dy")).to(dtype);
    y.backward(dy);
    if (x[0].requires_grad()) expect_near(x[0].grad(), key("dx0"), tolerance);
    for (const NamedParameter& p : module->named_parameters())
      expect_near(p.parameter.grad(), key("gradient/" + p.name), tolerance);
    for (const NamedBuffer& b : module->named_buffers())
      expect_near(b.buffer.value(), key("buffer/" + b.name), tolerance);
  }
};

TEST_P(Layer, IsThatOfPyTorchInDouble) { compare(DType::f64, 1e-12); }

TEST_P(Layer, IsThatOfPyTorchInFloat) { compare(DType::f32, 4e-6); }

TEST_P(Layer, PassesGradcheck) {
  if (!row().derivative) GTEST_SKIP() << "its gradient is defined to be other than the derivative";
  const ModulePtr module = make(DType::f64);
  const Inputs x = inputs(DType::f64);
  // One more input for each parameter, which the module then reads.
  const std::vector<NamedParameter> parameters = module->named_parameters();
  Inputs all = x;
  for (const NamedParameter& p : parameters) all.push_back(p.parameter.var());
  int differentiable = 0;
  for (const Var& v : all) differentiable += v.requires_grad();
  ASSERT_GT(differentiable, 0);
  gradcheck(
      [&](std::span<const Var> v) {
        return row().run(*module, Inputs(v.begin(), v.begin() + std::ssize(x)));
      },
      all);
}

TEST_P(Layer, HasTheParametersAndBuffersOfPyTorch) {
  const ModulePtr module = row().make();
  std::map<std::string, Shape> expected, got;
  const std::string prefix = std::string(row().name) + "/";
  for (const SafetensorsEntry& e : golden().entries()) {
    for (const char* what : {"parameter/", "start/"})
      if (e.name.starts_with(prefix + what))
        expected.emplace(what + e.name.substr(prefix.size() + std::string(what).size()), e.shape);
  }
  for (const NamedParameter& p : module->named_parameters())
    got.emplace("parameter/" + p.name, p.parameter.shape());
  for (const NamedBuffer& b : module->named_buffers())
    got.emplace("start/" + b.name, b.buffer.value().shape());
  EXPECT_EQ(got, expected);
}

TEST_P(Layer, InfersShapesOnMeta) {
  Rank rank(0, 1, 1, 0);
  rank.device = kMeta;
  const RankScope scope(rank);
  const ModulePtr module = row().make();
  Inputs x;
  for (const Var& v : inputs(DType::f32))
    x.emplace_back(Tensor::empty(v.shape(), v.dtype(), kMeta), v.requires_grad());
  const Var y = row().run(*module, x);
  EXPECT_TRUE(y.value().is_meta());
  EXPECT_EQ(y.shape(), golden().entry(key("y")).shape);
  if (!y.requires_grad()) return;
  y.backward(Tensor::empty(y.shape(), y.dtype(), kMeta));
  if (x[0].requires_grad()) {
    EXPECT_EQ(x[0].grad().shape(), x[0].shape());
  }
  for (const NamedParameter& p : module->named_parameters())
    EXPECT_EQ(p.parameter.grad().shape(), p.parameter.shape()) << p.name;
}

INSTANTIATE_TEST_SUITE_P(All, Layer, ::testing::Range(std::size_t{0}, rows().size()),
                         [](const auto& info) { return rows()[info.param].name; });

TEST(LayerList, HasARowForEachGoldenLayer) {
  std::map<std::string, int> names;
  for (const SafetensorsEntry& e : golden().entries()) names[e.name.substr(0, e.name.find('/'))];
  for (const Row& row : rows()) ++names[row.name];
  for (const auto& [name, count] : names) EXPECT_EQ(count, 1) << name;
}

TEST(BatchNorm2d, EvaluationAndRecomputationLeaveBuffersAlone) {
  BatchNorm2d norm(2);
  const Var x(Tensor::arange(24, DType::f32).reshape({3, 2, 2, 2}), true);
  norm.eval();
  norm(x);
  EXPECT_EQ(norm.num_batches_tracked.value().item(), 0);
  EXPECT_EQ(norm.running_mean.value().to_doubles(), (std::vector<double>{0, 0}));
  norm.train();
  BatchNorm2d twin(2);
  sum(square(twin(x))).backward();
  const Var y = checkpoint([&](const Var& v) { return norm(v); }, x);
  sum(square(y)).backward();
  EXPECT_EQ(norm.num_batches_tracked.value().item(), 1);
  EXPECT_EQ(norm.running_mean.value().to_doubles(), twin.running_mean.value().to_doubles());
  EXPECT_EQ(norm.running_var.value().to_doubles(), twin.running_var.value().to_doubles());
}

TEST(Dropout, KeepsTheExpectedShareAndScalesIt) {
  Dropout drop(0.25, "drop");
  const Tensor y = drop(Var(Tensor::full({100, 100}, 3))).value();
  int kept = 0;
  for (const float v : y.to_vector<float>()) {
    EXPECT_TRUE(v == 0 || v == 4) << v;
    kept += v != 0;
  }
  EXPECT_NEAR(kept, 7500, 4 * std::sqrt(10000 * 0.25 * 0.75));
  drop.eval();
  EXPECT_EQ(drop(Var(Tensor::full({2}, 3))).value().to_vector<float>(), (std::vector<float>{3, 3}));
}

TEST(Dropout, MasksAreKeyedByNameStepAndSeed) {
  Rank rank(0, 1, 1, 5);
  const RankScope scope(rank);
  const Var x(Tensor::full({8, 32}, 1));
  Sequential net = sequential(Dropout(), Dropout());
  const auto mask = [&](int i) { return net[i](x).value().to_vector<float>(); };
  const auto first = mask(0);
  EXPECT_EQ(mask(0), first);
  EXPECT_NE(mask(1), first);
  rank.state.step = 1;
  EXPECT_NE(mask(0), first);
  rank.state.step = 0;
  rank.seed = 6;
  EXPECT_NE(mask(0), first);
  rank.seed = 5;
  // A rank whose slice begins at sample 4 draws the second half of the batch's mask.
  rank.state.first_sample = 4;
  const auto half = net[0](Var(Tensor::full({4, 32}, 1))).value().to_vector<float>();
  EXPECT_EQ(half, std::vector<float>(first.begin() + 128, first.end()));
}

TEST(Layers, OptionsOutOfRangeAreErrors) {
  const Tensor x = Tensor::zeros({2, 3});
  EXPECT_EQ(error_of([] { Linear(-1, 2); }), "[Linear] sizes must not be negative, got -1 -> 2");
  EXPECT_EQ(error_of([] { Conv2d(4, 6, 3, {.groups = 4}); }),
            "[Conv2d] 4 groups do not divide 4 input and 6 output channels");
  EXPECT_EQ(error_of([] {
              Conv2d(4, 6, {3, 0});
            }),
            "[Conv2d] kernel must be at least 1, got [3, 0]");
  EXPECT_EQ(error_of([] { Conv2d(4, 6, 3, {.stride = 0}); }),
            "[Conv2d] stride must be at least 1, got [0, 0]");
  EXPECT_EQ(error_of([] { Conv2d(4, 6, 3, {.padding = -1}); }),
            "[Conv2d] padding must be at least 0, got [-1, -1]");
  EXPECT_EQ(error_of([] { MaxPool2d(2, {.padding = 2}); }),
            "[MaxPool2d] padding must be at most half the kernel, got [2, 2] for [2, 2]");
  EXPECT_EQ(
      error_of([] {
        AdaptiveAvgPool2d({7, 7});
      }),
      "[AdaptiveAvgPool2d] only output size 1 is supported, got [7, 7]; AvgPool2d takes a kernel "
      "size");
  EXPECT_EQ(error_of([&] { BatchNorm2d(3)(Var(x)); }),
            "[BatchNorm2d] input is [2, 3], expected [N, C, H, W]");
  EXPECT_EQ(error_of([] { LayerNorm(Shape{}); }), "[LayerNorm] needs at least one dimension");
  EXPECT_EQ(error_of([] { Embedding(3, 2, 3); }), "[Embedding] padding_index 3 is outside [0, 3)");
  EXPECT_EQ(error_of([] { Dropout(1.5); }), "[Dropout] p must be within [0, 1], got 1.5");
  EXPECT_EQ(error_of([&] { Dropout(0.5)(Var(x)); }),
            "[Dropout] has no name to key its mask by: make it a child, child(\"drop\", "
            "nn::Dropout(0.5)), or give it one, nn::Dropout(0.5, \"drop\")");
}

}  // namespace
}  // namespace sg::nn
