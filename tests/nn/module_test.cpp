// Names, order, modes and ownership of modules.
#include "nn/module.h"

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "nn/nn.h"
#include "tests/nn/nets.h"
#include "tests/nn/support.h"

namespace sg::nn {
namespace {

std::vector<std::string> parameter_names(const Module& module) {
  std::vector<std::string> names;
  for (const NamedParameter& p : module.named_parameters()) {
    EXPECT_EQ(p.parameter.name(), p.name);
    names.push_back(p.name);
  }
  return names;
}

TEST(Module, FourNetsHaveTheNamesOrderAndShapesOfPyTorch) {
  std::ifstream in(std::string(SG_TEST_DATA) + "/nn_nets.json");
  const nlohmann::json golden = nlohmann::json::parse(in);
  const std::map<std::string, ModulePtr> nets = {{"tutorial", share(tutorial_net())},
                                                 {"mlp", share(Mlp())},
                                                 {"vgg", share(vgg_net())},
                                                 {"resnet20", share(ResNet20())}};
  for (const auto& [name, net] : nets) {
    SCOPED_TRACE(name);
    EXPECT_EQ(parameter_names(*net), golden["parameters"][name].get<std::vector<std::string>>());
    std::map<std::string, std::vector<std::int64_t>> expected, got;
    for (const auto& item : golden["state_dict"][name])
      item[1].get_to(expected[item[0].get<std::string>()]);
    for (const auto& p : net->named_parameters())
      got[p.name] = {p.parameter.shape().begin(), p.parameter.shape().end()};
    for (const auto& b : net->named_buffers())
      got[b.name] = {b.buffer.value().shape().begin(), b.buffer.value().shape().end()};
    EXPECT_EQ(got, expected);
  }
  EXPECT_EQ(nets.at("tutorial")->parameter_count(), 62006);
}

struct RMSNorm : Module {
  std::int64_t size;
  double eps = 1e-6;
  Parameter weight = parameter("weight", {size}, ones);
  explicit RMSNorm(std::int64_t size) : size(size) {}
  Var forward(const Var& x) override { return x * rsqrt(mean(square(x), -1, keep) + eps) * weight; }
};

struct Block : Module {
  RMSNorm norm = child("norm", RMSNorm(4));
  Linear fc = child("fc", Linear(4, 4));
  Parameter scale = parameter("scale", {}, constant(0.5));
  Var forward(const Var& x) override { return x + scale * fc(norm(x)); }
};

TEST(Module, AStrangersLayerWorks) {
  Block block;
  EXPECT_EQ(parameter_names(block),
            (std::vector<std::string>{"scale", "norm.weight", "fc.weight", "fc.bias"}));
  EXPECT_EQ(block.norm.name(), "norm");
  block.fc.weight.init(zeros);
  block.fc.bias.init(constant(3));
  const Var y = block(Var(Tensor::full({2, 4}, 2)));
  EXPECT_EQ(y.value().to_vector<float>(), std::vector<float>(8, 3.5f));
  const Var n = RMSNorm(4)(Var(Tensor::full({2, 4}, -2)));
  for (const float v : n.value().to_vector<float>()) EXPECT_NEAR(v, -1, 1e-6);
}

TEST(Module, NamesReachThroughEveryLevelInWhateverOrderTheyAreBuilt) {
  Sequential inner = sequential(Linear(1, 1));
  Sequential outer = sequential(named("block", inner), Linear(1, 1, false));
  inner.append("late", Linear(1, 1, false));  // a module that has its parent already
  EXPECT_EQ(parameter_names(outer), (std::vector<std::string>{"block.0.weight", "block.0.bias",
                                                              "block.late.weight", "1.weight"}));
  EXPECT_EQ(inner[1].name(), "block.late");
  EXPECT_EQ(inner.named_parameters()[0].name, "0.weight") << "relative to the module that is asked";
  Sequential root = sequential(named("net", outer));
  EXPECT_EQ(parameter_names(root)[2], "net.block.late.weight");
}

TEST(Module, CopiesAreTheSameModule) {
  Linear a(2, 2);
  Linear b = a;
  Linear c = std::move(b);
  EXPECT_EQ(a.weight.id(), c.weight.id());
  c.eval();
  EXPECT_FALSE(a.is_training());
}

TEST(Module, ModesReachEveryChild) {
  ResNet20 net;
  net.eval();
  EXPECT_FALSE(net.layer2[0].is_training());
  net.layer2.train();
  EXPECT_TRUE(net.layer2[0].is_training());
  EXPECT_FALSE(net.layer3[0].is_training());
  EXPECT_FALSE(net.is_training());
}

TEST(Module, FreezingByModuleAndByParameter) {
  ResNet20 net;
  net.layer1.requires_grad_(false);
  net.fc.bias.requires_grad_(false);
  for (const NamedParameter& p : net.named_parameters())
    EXPECT_EQ(p.parameter.requires_grad(), !p.name.starts_with("layer1.") && p.name != "fc.bias")
        << p.name;
  Linear fc(2, 2);
  fc.weight.requires_grad_(false);
  sum(fc(Var(Tensor::full({1, 2}, 1)))).backward();
  EXPECT_FALSE(fc.weight.grad().defined());
  EXPECT_TRUE(fc.bias.grad().defined());
  fc.zero_grad();
  EXPECT_FALSE(fc.bias.grad().defined());
}

struct Tied : Module {
  Embedding embed = child("embed", Embedding(5, 3));
  Linear head = child("head", Linear(3, 5, false));
  Tied() { head.weight.tie(embed.weight); }
  Var forward(const Var& x) override { return head(embed(x)); }
};

TEST(Module, TiedParametersAppearOnceAndSumTheirGradients) {
  Tied net;
  const auto parameters = net.named_parameters();
  ASSERT_EQ(parameters.size(), 1u);
  EXPECT_EQ(parameters[0].name, "embed.weight");
  EXPECT_EQ(parameters[0].aliases, (std::vector<std::string>{"head.weight"}));
  EXPECT_EQ(net.parameter_count(), 15);
  EXPECT_EQ(net.parameter_named("head.weight").id(), net.embed.weight.id());
  const Tensor tokens = Tensor::from(std::vector<std::int64_t>{1, 4}, {2});
  sum(net(Var(tokens))).backward();
  // d/dW of sum_ij W[t_i] . W[j]: every row gets the sum of the rows used; rows used get the sum of
  // all rows.
  const std::vector<double> w = net.embed.weight.value().to_doubles();
  const std::vector<double> g = net.head.weight.grad().to_doubles();
  for (int r = 0; r < 5; ++r)
    for (int c = 0; c < 3; ++c) {
      double expected = w[3 + c] + w[12 + c];
      if (r == 1 || r == 4)
        for (int k = 0; k < 5; ++k) expected += w[3 * k + c];
      EXPECT_NEAR(g[3 * r + c], expected, 1e-5);
    }
}

TEST(Module, AModuleInTwoPlacesIsListedOnce) {
  const Linear shared(2, 2);
  const Sequential net = sequential(shared, ReLU(), shared);
  EXPECT_EQ(parameter_names(net), (std::vector<std::string>{"0.weight", "0.bias"}));
}

TEST(Module, AParameterRegisteredTwiceKeepsItsFirstName) {
  struct Both : Module {
    Linear first = child("first", Linear(2, 2, false));
    Parameter again = parameter("again", first.weight);
  };
  const Both net;
  // A module's own come before its children's.
  EXPECT_EQ(parameter_names(net), (std::vector<std::string>{"again"}));
  EXPECT_EQ(net.named_parameters()[0].aliases, (std::vector<std::string>{"first.weight"}));
}

TEST(Module, ConstructionAllocatesBuffersOnly) {
  Rank rank(0, 1, 1, 0);
  const RankScope scope(rank);
  const Linear huge(1 << 20, 1 << 20);
  EXPECT_EQ(rank.ledger().peak_total(), 0);
  const BatchNorm2d norm(7);
  EXPECT_EQ(rank.ledger().live(Kind::buffers), 2 * 7 * 4 + 8);
  EXPECT_EQ(rank.ledger().live(Kind::parameters), 0);
  EXPECT_EQ(rank.ledger().live(Kind::activations), 0);
}

TEST(Module, ToConvertsParametersAndFloatingBuffers) {
  Sequential net = sequential(Conv2d(1, 2, 3), BatchNorm2d(2));
  net.to(DType::f64);
  for (const auto& p : net.named_parameters()) {
    EXPECT_EQ(p.parameter.dtype(), DType::f64);
    EXPECT_TRUE(p.parameter.declared());
  }
  const auto buffers = net.named_buffers();
  EXPECT_EQ(buffers[0].name, "1.running_mean");
  EXPECT_EQ(buffers[0].buffer.value().dtype(), DType::f64);
  EXPECT_EQ(buffers[0].buffer.value().storage()->kind(), Kind::buffers);
  EXPECT_EQ(buffers[2].name, "1.num_batches_tracked");
  EXPECT_EQ(buffers[2].buffer.value().dtype(), DType::i64);
  EXPECT_EQ(net(Var(Tensor::full({2, 1, 4, 4}, 1, DType::f64))).dtype(), DType::f64);
  EXPECT_GT(dynamic_cast<BatchNorm2d&>(net[1]).num_batches_tracked.value().item(), 0)
      << "the layer's own handle must see the same buffer";
}

TEST(Module, ErrorsSayInWhichModule) {
  Sequential net = sequential(named("body", sequential(Flatten(), named("fc1", Linear(400, 120)))));
  const Var x(Tensor::zeros({2, 3, 4}));
  const std::string text = error_of([&] { net(x); });
  EXPECT_TRUE(text.starts_with("[linear]")) << text;
  EXPECT_TRUE(text.ends_with(" (in body.fc1)")) << text;
  Sequential fused = sequential(named("fc1", Linear(400, 120)), ReLU());
  const std::string fused_text = error_of([&] { fused(x); });
  EXPECT_TRUE(fused_text.ends_with(" (in fc1)")) << fused_text;
  const std::string alone = error_of([&] { Linear(400, 120)(x); });
  EXPECT_EQ(alone.find("(in"), std::string::npos) << alone;
}

TEST(Module, RegistrationErrors) {
  struct Net : Module {
    using Module::child;
    using Module::parameter;
  };
  Net net;
  net.parameter("w", {1}, ones);
  EXPECT_EQ(error_of([&] { net.parameter("w", {1}, ones); }),
            "[module] the name w is taken within this module");
  EXPECT_EQ(error_of([&] { net.child("w", ReLU()); }),
            "[module] the name w is taken within this module");
  EXPECT_EQ(
      error_of([&] { net.child("a.b", ReLU()); }),
      "[module] \"a.b\" is no name for a parameter, buffer or module: it must not be empty or "
      "contain a dot");
  EXPECT_EQ(error_of([&] { net.child("", ReLU()); }).substr(0, 11), "[module] \"\"");
  EXPECT_EQ(error_of([&] { net.child("me", net); }),
            "[module] me contains the module it is added to");
  EXPECT_EQ(error_of([&] { net(Var(Tensor::zeros({1}))); }),
            "[module] this module has no forward(const Var&); call the one it has by name");
  EXPECT_EQ(error_of([&] { net.parameter_named("v"); }),
            "[module] there is no parameter v; there are: w");
}

TEST(Module, SharedPointersAreChildrenToo) {
  struct Net : Module {
    std::shared_ptr<Linear> fc = child("fc", std::make_shared<Linear>(2, 1));
    Var forward(const Var& x) override { return (*fc)(x); }
  };
  EXPECT_EQ(parameter_names(Net()), (std::vector<std::string>{"fc.weight", "fc.bias"}));
  EXPECT_EQ(parameter_names(sequential(share(Linear(1, 1)))),
            (std::vector<std::string>{"0.weight", "0.bias"}));
}

}  // namespace
}  // namespace sg::nn
