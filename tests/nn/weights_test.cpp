// Weights in and out of modules, and files that do not fit.
#include "nn/weights.h"

#include <fstream>

#include "nn/nn.h"
#include "tests/nn/nets.h"
#include "tests/nn/support.h"

namespace sg::nn {
namespace {

class Weights : public ::testing::Test {
 protected:
  Rank rank_{0, 1, 1, 1};
  RankScope scope_{rank_};
  TemporaryFolder folder_;

  std::string load_error(Module& module, const std::string& file) const {
    return folder_.strip(error_of([&] { load_weights(module, folder_ / file); }));
  }
};

std::vector<std::vector<double>> values_of(const Module& module) {
  std::vector<std::vector<double>> values;
  for (const NamedParameter& p : module.named_parameters())
    values.push_back(p.parameter.value().to_doubles());
  for (const NamedBuffer& b : module.named_buffers())
    values.push_back(b.buffer.value().to_doubles());
  return values;
}

void fill_all(const Module& module, double value) {
  for (const NamedParameter& p : module.named_parameters()) p.parameter.value().fill(value);
  for (const NamedBuffer& b : module.named_buffers()) b.buffer.value().fill(value);
}

TEST_F(Weights, GoOutAndComeBackWithBuffers) {
  ResNet20 net;
  net.layer2.train(false);
  NoGrad no_grad;
  net(Var(Tensor::full({2, 3, 32, 32}, 0.5)));  // moves some running statistics
  save_weights(net, folder_ / "a.safetensors");
  const auto saved = values_of(net);
  ResNet20 other;
  load_weights(other, folder_ / "a.safetensors");
  EXPECT_EQ(values_of(other), saved);
  fill_all(other, 7);
  load_weights(other, folder_ / "a.safetensors");
  EXPECT_EQ(values_of(other), saved) << "into parameters that were made already";
}

TEST_F(Weights, DeclaredParametersAreSavedWithTheirInitialValues) {
  Sequential net = tutorial_net();
  save_weights(net, folder_ / "initial.safetensors");
  for (const NamedParameter& p : net.named_parameters()) EXPECT_TRUE(p.parameter.declared());
  EXPECT_EQ(rank_.ledger().peak(Kind::parameters), 0);
  const SafetensorsFile file(folder_ / "initial.safetensors");
  EXPECT_EQ(file.metadata(), (SafetensorsMetadata{{"format", "pt"}}));
  EXPECT_EQ(file.entries().size(), 10u);
  for (const NamedParameter& p : net.named_parameters())
    EXPECT_EQ(file.read(p.name).to_doubles(), p.parameter.value().to_doubles()) << p.name;
}

TEST_F(Weights, DeclaredParametersAreReadWhenTheyAreWanted) {
  {
    const Linear net(50, 40);
    fill_all(net, 3);
    save_weights(net, folder_ / "w.safetensors");
  }
  Linear net(50, 40);
  load_weights(net, folder_ / "w.safetensors");
  EXPECT_TRUE(net.weight.declared());
  EXPECT_EQ(rank_.ledger().live(Kind::parameters), 0);
  std::filesystem::remove(folder_ / "w.safetensors");  // the open file lives on
  float part[7];
  net.weight.read(0, 1000, 7, part, DType::f32);
  EXPECT_EQ(part[6], 3);
  EXPECT_TRUE(net.weight.declared());
  EXPECT_EQ(net.bias.value().to_vector<float>(), std::vector<float>(40, 3));
}

TEST_F(Weights, PyTorchsFilesLoad) {
  // tests/golden/nn.py's file has this layer's parameters under other names: copy them into a state
  // dict.
  const SafetensorsFile golden(std::string(SG_TEST_DATA) + "/nn_layers.safetensors");
  SafetensorsWriter writer(folder_ / "w.safetensors",
                           {{"weight", DType::f64, {3, 5}}, {"bias", DType::f64, {3}}});
  for (const char* name : {"weight", "bias"})
    writer.write(name, golden.read(std::string("linear/parameter/") + name));
  writer.finish();
  Linear net(5, 3);
  load_weights(net, folder_ / "w.safetensors");  // f64 in the file, f32 here
  EXPECT_EQ(net.weight.value().to_vector<float>(),
            golden.read("linear/parameter/weight").to_vector<float>());
}

TEST_F(Weights, OneErrorListsAllThatDoesNotFitAndNothingChanges) {
  {
    SafetensorsWriter writer(folder_ / "model.safetensors",
                             {{"conv1.weight", DType::f32, {6, 3, 3, 3}},
                              {"conv1.bias", DType::f32, {6}},
                              {"conv2.weight", DType::f32, {16, 6, 5, 5}},
                              {"conv2.bias", DType::i64, {16}},
                              {"fc1.weight", DType::f32, {120, 400}},
                              {"fc2.weight", DType::f32, {84, 120}},
                              {"fc2.bias", DType::f32, {84}},
                              {"fc3.weight", DType::f32, {10, 84}},
                              {"foo", DType::f32, {3}},
                              {"bar", DType::f32, {}}});
    for (const auto& [name, dtype, shape] :
         std::vector<SafetensorsWriter::Declared>{{"conv1.weight", DType::f32, {6, 3, 3, 3}},
                                                  {"conv1.bias", DType::f32, {6}},
                                                  {"conv2.weight", DType::f32, {16, 6, 5, 5}},
                                                  {"conv2.bias", DType::i64, {16}},
                                                  {"fc1.weight", DType::f32, {120, 400}},
                                                  {"fc2.weight", DType::f32, {84, 120}},
                                                  {"fc2.bias", DType::f32, {84}},
                                                  {"fc3.weight", DType::f32, {10, 84}},
                                                  {"foo", DType::f32, {3}},
                                                  {"bar", DType::f32, {}}})
      writer.write(name, Tensor::zeros(shape, dtype));
    writer.finish();
  }
  Sequential net = tutorial_net();
  const std::string text =
      "[load] model.safetensors does not fit the model: missing fc1.bias, fc3.bias; unexpected bar "
      "[], "
      "foo [3]; conv1.weight is [6, 3, 3, 3], expected [6, 3, 5, 5]; conv2.bias is i64, expected "
      "f32";
  EXPECT_EQ(load_error(net, "model.safetensors"), text);
  for (const NamedParameter& p : net.named_parameters()) EXPECT_TRUE(p.parameter.declared());
  const auto before = values_of(net);
  EXPECT_EQ(load_error(net, "model.safetensors"), text);
  EXPECT_EQ(values_of(net), before);
}

TEST_F(Weights, ASingleDifferenceIsNamedAlone) {
  save_weights(Linear(2, 3), folder_ / "w.safetensors");
  const auto error = [&](Linear net) { return load_error(net, "w.safetensors"); };
  EXPECT_EQ(error(Linear(2, 3, false)),
            "[load] w.safetensors does not fit the model: unexpected bias [3]");
  EXPECT_EQ(error(Linear(3, 3)),
            "[load] w.safetensors does not fit the model: weight is [3, 2], expected [3, 3]");
  save_weights(Linear(2, 3, false), folder_ / "v.safetensors");
  Linear net(2, 3);
  EXPECT_EQ(load_error(net, "v.safetensors"),
            "[load] v.safetensors does not fit the model: missing bias");
  EXPECT_EQ(load_error(net, "none"),
            "[safetensors] none: cannot be opened: No such file or directory");
}

TEST_F(Weights, NumBatchesTrackedMayBeAbsent) {
  SafetensorsWriter writer(folder_ / "w.safetensors", {{"weight", DType::f32, {2}},
                                                       {"bias", DType::f32, {2}},
                                                       {"running_mean", DType::f32, {2}},
                                                       {"running_var", DType::f32, {2}}});
  for (const char* name : {"weight", "bias", "running_mean", "running_var"})
    writer.write(name, Tensor::full({2}, 5));
  writer.finish();
  BatchNorm2d norm(2);
  norm.num_batches_tracked.value().fill(9);
  load_weights(norm, folder_ / "w.safetensors");
  EXPECT_EQ(norm.running_var.value().to_vector<float>(), (std::vector<float>{5, 5}));
  EXPECT_EQ(norm.weight.value().to_vector<float>(), (std::vector<float>{5, 5}));
  EXPECT_EQ(norm.num_batches_tracked.value().item(), 9);
}

struct Tied : Module {
  Embedding embed = child("embed", Embedding(5, 3));
  Linear head = child("head", Linear(3, 5, false));
  Tied() { head.weight.tie(embed.weight); }
};

TEST_F(Weights, TiedParametersAreSavedOnceAndLoadUnderAnyName) {
  const Tied net;
  save_weights(net, folder_ / "tied.safetensors");
  const SafetensorsFile file(folder_ / "tied.safetensors");
  EXPECT_EQ(file.entries().size(), 1u);
  EXPECT_EQ(file.metadata(),
            (SafetensorsMetadata{{"format", "pt"}, {"head.weight", "embed.weight"}}));
  const auto load = [&](const std::vector<std::string>& names) {
    std::vector<SafetensorsWriter::Declared> tensors;
    for (const std::string& name : names) tensors.push_back({name, DType::f32, {5, 3}});
    SafetensorsWriter writer(folder_ / "w.safetensors", tensors);
    for (std::size_t i = 0; i < names.size(); ++i)
      writer.write(names[i], Tensor::full({5, 3}, static_cast<double>(i + 1)));
    writer.finish();
    Tied to;
    load_weights(to, folder_ / "w.safetensors");
    return to.head.weight.value().to_vector<float>()[14];
  };
  EXPECT_EQ(load({"embed.weight"}), 1);
  EXPECT_EQ(load({"head.weight"}), 1);
  EXPECT_EQ(load({"head.weight", "embed.weight"}), 2);
}

// The value of a sharded parameter is not here to be overwritten.
TEST_F(Weights, ParametersThatASourceHoldsAreRefusedByName) {
  class Gathered : public Source {
   public:
    std::shared_ptr<Storage> get() override { return nullptr; }
    std::uint64_t version() const override { return 0; }
    std::string name() const override { return "unit 0"; }
  };
  save_weights(Linear(2, 3), folder_ / "w.safetensors");
  Linear net(2, 3);
  net.weight.value().fill(1);
  net.bias.attach(std::make_shared<Gathered>(), 0);
  EXPECT_EQ(load_error(net, "w.safetensors"),
            "[load] bias is held by unit 0; load through the engine, or before it is made");
  EXPECT_EQ(net.weight.value().to_vector<float>(), std::vector<float>(6, 1));
}

}  // namespace
}  // namespace sg::nn
