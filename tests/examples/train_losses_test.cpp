// The example nets follow PyTorch's losses and gradient norms over ten steps of Adam, from weights
// and images that both sides make by integer hashes. tests/golden/train_losses.py states the
// formulas and wrote the values.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/cifar10.h"
#include "dist/engine.h"
#include "dist/launch.h"
#include "examples/cifar/nets.h"
#include "nn/loss.h"
#include "optim/adam.h"
#include "optim/span_optimizer.h"

namespace sg {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const json& golden() {
  static const json file = [] {
    std::ifstream in(SG_TEST_DATA "/train_losses.json");
    return json::parse(in);
  }();
  return file;
}

// ---- the formulas of train_losses.py

std::uint64_t fnv1a(std::string_view text) {
  std::uint64_t h = 0xcbf29ce484222325;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return h;
}

std::uint64_t splitmix64(std::uint64_t x) {
  std::uint64_t z = x + 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

std::uint64_t hash(std::uint64_t name, std::int64_t i) {
  return splitmix64(name + static_cast<std::uint64_t>(i));
}

double hashed_weight(std::uint64_t name, std::int64_t i, std::int64_t fan_in) {
  const double u = static_cast<double>(hash(name, i) >> 11) * 0x1p-53;
  return static_cast<float>((2 * u - 1) * (1 / std::sqrt(static_cast<double>(fan_in))));
}

struct Samples {
  std::vector<std::uint8_t> images, labels;
};

constexpr std::int64_t kImage = 3 * 32 * 32, kBatch = 32, kSteps = 10, kSamples = kBatch * kSteps;

Samples hashed_samples() {
  const std::uint64_t label = fnv1a("label"), swap = fnv1a("swap"), other = fnv1a("other");
  const std::uint64_t image = fnv1a("image"), pattern = fnv1a("pattern");
  Samples samples;
  for (std::int64_t n = 0; n < kSamples; ++n) {
    const auto own = static_cast<std::int64_t>(hash(label, n) % 10);
    const auto shown =
        hash(swap, n) % 4 == 0 ? static_cast<std::int64_t>(hash(other, n) % 10) : own;
    samples.labels.push_back(static_cast<std::uint8_t>(own));
    for (std::int64_t i = 0; i < kImage; ++i) {
      const std::int64_t c = i / 1024, y = i / 32 % 32, x = i % 32;
      const std::uint64_t noise = hash(image, kImage * n + i) >> 56;
      const std::uint64_t block = hash(pattern, 48 * shown + 16 * c + 4 * (y / 8) + x / 8) >> 56;
      samples.images.push_back(static_cast<std::uint8_t>((block + noise) / 2));
    }
  }
  return samples;
}

/// data_batch_1.bin of the folder that SHARDGRAD_DATA names; nothing without it.
std::optional<Samples> real_samples() {
  const char* folder = std::getenv("SHARDGRAD_DATA");
  if (folder == nullptr) return std::nullopt;
  fs::path file = fs::path(folder) / "cifar-10-batches-bin" / "data_batch_1.bin";
  if (!fs::exists(file)) file = fs::path(folder) / "data_batch_1.bin";
  const data::Dataset set = data::read_cifar10_file(file.string());
  SG_CHECK(set.size() >= kSamples, "[test] {} has {} images, expected {}", file.string(),
           set.size(), kSamples);
  return Samples{{set.images.begin(), set.images.begin() + kSamples * kImage},
                 {set.labels.begin(), set.labels.begin() + kSamples}};
}

/// Samples [first, first + count) as a net of `dtype` reads them.
std::pair<Tensor, Tensor> batch_of(const Samples& samples, DType dtype, std::int64_t first,
                                   std::int64_t count) {
  std::vector<double> images;
  for (std::int64_t i = first * kImage; i < (first + count) * kImage; ++i)
    images.push_back((samples.images[static_cast<std::size_t>(i)] / 255.0 - 0.5) / 0.5);
  const auto begin = samples.labels.begin() + first;
  return {Tensor::from(images, {count, 3, 32, 32}).to(dtype),
          Tensor::from(std::vector<std::int64_t>(begin, begin + count), {count})};
}

/// The net with the weights of the formula, still declarations: each rank makes its own span.
nn::ModulePtr hashed_net(const std::string& name, int seed, DType dtype) {
  const nn::ModulePtr net = cifar::make_net(name, false, dtype);
  std::map<std::string, std::int64_t> fan_in;  // by module
  for (const auto& [full_name, parameter, aliases] : net->named_parameters()) {
    const std::size_t dot = full_name.rfind('.');
    const std::string module = full_name.substr(0, dot);
    const Shape& shape = parameter.shape();
    if (full_name.substr(dot) == ".weight" && shape.size() > 1)
      fan_in[module] = numel(shape) / shape[0];
    if (!fan_in.contains(module)) continue;  // batch norm keeps its ones and zeros
    const std::uint64_t key = fnv1a(full_name + "@" + std::to_string(seed));
    parameter.init([key, fan = fan_in.at(module)](const nn::FillContext&, std::int64_t begin,
                                                  std::span<double> out) {
      for (std::size_t i = 0; i < out.size(); ++i)
        out[i] = hashed_weight(key, begin + static_cast<std::int64_t>(i), fan);
    });
  }
  return net;
}

TEST(TrainLosses, FormulasGiveTheProbedValues) {
  const json& probe = golden().at("probe");
  EXPECT_EQ(fmt::format("{:016x}", fnv1a("conv1.weight@0")), probe.at("fnv1a(conv1.weight@0)"));
  EXPECT_EQ(fmt::format("{:016x}", hash(fnv1a("conv1.weight@0"), 0)),
            probe.at("hash(conv1.weight@0, 0)"));
  for (std::int64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(hashed_weight(fnv1a("conv1.weight@0"), i, 75),
              probe.at("first 4 of conv1.weight@0, fan_in 75").at(i));
    EXPECT_EQ(hashed_weight(fnv1a("fc3.bias@0"), i, 84),
              probe.at("first 4 of fc3.bias@0, fan_in 84").at(i));
  }
  const Samples samples = hashed_samples();
  const std::vector<std::uint8_t>& images = samples.images;
  using Bytes = std::vector<std::uint8_t>;
  EXPECT_EQ(Bytes(samples.labels.begin(), samples.labels.begin() + 16),
            probe.at("hashed labels, first 16").get<Bytes>());
  EXPECT_EQ(Bytes(images.begin(), images.begin() + 16),
            probe.at("hashed image 0, first 16 bytes").get<Bytes>());
  EXPECT_EQ(Bytes(images.end() - 16, images.end()),
            probe.at("hashed image 319, last 16 bytes").get<Bytes>());

  const nn::ModulePtr net = hashed_net("tutorial", 0, DType::f32);
  const std::vector<double> weight = net->parameter_named("conv1.weight").value().to_doubles();
  EXPECT_EQ(std::vector<double>(weight.begin(), weight.begin() + 4),
            probe.at("first 4 of conv1.weight@0, fan_in 75").get<std::vector<double>>());
}

// ---- training

struct Curve {
  std::vector<double> losses, norms;
};

/// Training without dist: a module, an optimizer, a loop.
Curve train(const std::string& name, int seed, DType dtype, const Samples& samples,
            std::int64_t steps) {
  const nn::ModulePtr net = hashed_net(name, seed, dtype);
  const optim::OptimizerPtr adam = optim::adam({.lr = 1e-3});
  std::vector<nn::Parameter> parameters;
  std::vector<optim::SpanOptimizer::Parameter> spans;
  for (const auto& named : net->named_parameters()) {
    parameters.push_back(named.parameter);
    spans.push_back({named.name, named.parameter.value(), adam->defaults()});
  }
  optim::SpanOptimizer optimizer(adam, spans);
  Curve curve;
  for (std::int64_t step = 0; step < steps; ++step) {
    const auto [images, labels] = batch_of(samples, dtype, step * kBatch, kBatch);
    net->zero_grad();
    const Var loss = nn::cross_entropy((*net)(images), labels);
    curve.losses.push_back(loss.item());
    loss.backward();
    std::vector<Tensor> grads;
    for (const nn::Parameter& parameter : parameters) grads.push_back(parameter.grad());
    curve.norms.push_back(optimizer.grad_norm(grads));
    optimizer.step(grads);
  }
  return curve;
}

/// Training by the engine on thread ranks of one thread each.
Curve train_on_ranks(int ranks, const std::string& plan, const std::string& name, int seed,
                     DType dtype, const Samples& samples) {
  Curve curve;
  dist::launch_ranks(ranks,
                     [&](Rank& rank) {
                       const auto engine = dist::initialize(hashed_net(name, seed, dtype),
                                                            optim::adam({.lr = 1e-3}),
                                                            {.plan = plan, .grad_norm = true});
                       for (std::int64_t step = 0; step < kSteps; ++step) {
                         const std::int64_t part = kBatch / ranks;
                         const auto [images, labels] =
                             batch_of(samples, dtype, step * kBatch + rank.index * part, part);
                         engine->backward(nn::cross_entropy((*engine)(images), labels));
                         engine->step();
                         if (rank.index != 0) continue;
                         curve.losses.push_back(engine->loss());
                         curve.norms.push_back(engine->grad_norm().value());
                       }
                     },
                     {.threads = 1});
  return curve;
}

/// Each step's value may be away from the recorded one by `bound`, relative; where PyTorch's own
/// runs up to that step lie apart by more than a quarter of it and `spread` names that record, by
/// four times as much.
void expect_near(const std::vector<double>& got, const json& record, const char* key,
                 const char* spread, double bound) {
  const auto wanted = record.at(key).get<std::vector<double>>();
  std::vector<double> apart(got.size(), 0.0);
  if (spread != nullptr) apart = record.at(spread).get<std::vector<double>>();
  double most = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double difference = std::abs(got[i] - wanted[i]) / std::abs(wanted[i]);
    EXPECT_LE(difference, std::max(bound, 4 * apart[i]))
        << key << " of step " << i << ": " << got[i] << ", PyTorch " << wanted[i];
    most = std::max(most, difference);
  }
  testing::Test::RecordProperty(fmt::format("{}_difference", key), fmt::format("{:.1e}", most));
}

void expect_curve(const Curve& got, const json& record, double bound) {
  expect_near(got.losses, record, "loss", nullptr, bound);
  expect_near(got.norms, record, "grad_norm", "norm_spread", bound);
}

struct Case {
  const char* net;
  const char* set;
  DType dtype;
};

class Losses : public testing::TestWithParam<Case> {
 protected:
  void follow() {
    const Case& c = GetParam();
    const std::optional<Samples> samples =
        c.set == std::string_view("real") ? real_samples() : hashed_samples();
    if (!samples)
      GTEST_SKIP() << "SHARDGRAD_DATA is not set: it names a folder with cifar-10-batches-bin/";
    const json& record = golden().at("nets").at(c.net).at(c.set);
    // In f32 resnet20 is chaotic: PyTorch in another memory format is 1e-2 away after ten steps.
    const bool chaotic = c.dtype == DType::f32 && c.net == std::string_view("resnet20");
    expect_curve(train(c.net, record.at("seed"), c.dtype, *samples, chaotic ? 2 : kSteps),
                 record.at(std::string(name_of(c.dtype))), c.dtype == DType::f64 ? 1e-9 : 1e-4);
  }
};

std::vector<Case> cases(std::initializer_list<const char*> nets,
                        std::initializer_list<DType> dtypes) {
  std::vector<Case> all;
  for (const char* net : nets)
    for (const char* set : {"hashed", "real"})
      for (const DType dtype : dtypes) all.push_back({net, set, dtype});
  return all;
}

std::string name_of_case(const testing::TestParamInfo<Case>& info) {
  return fmt::format("{}_{}_{}", info.param.net, info.param.set, name_of(info.param.dtype));
}

TEST_P(Losses, FollowPyTorch) { follow(); }
INSTANTIATE_TEST_SUITE_P(Small, Losses,
                         testing::ValuesIn(cases({"tutorial", "mlp"}, {DType::f32, DType::f64})),
                         name_of_case);
INSTANTIATE_TEST_SUITE_P(Large, Losses, testing::ValuesIn(cases({"vgg", "resnet20"}, {DType::f32})),
                         name_of_case);

using SlowLosses = Losses;
TEST_P(SlowLosses, FollowPyTorch) { follow(); }
INSTANTIATE_TEST_SUITE_P(Large, SlowLosses,
                         testing::ValuesIn(cases({"vgg", "resnet20"}, {DType::f64})), name_of_case);

TEST(TrainLosses, Zero3OnTwoRanksFollowsPyTorch) {
  const Samples samples = hashed_samples();
  const json& record = golden().at("nets").at("tutorial").at("hashed");
  for (const DType dtype : {DType::f32, DType::f64}) {
    SCOPED_TRACE(name_of(dtype));
    expect_curve(train_on_ranks(2, "zero3", "tutorial", record.at("seed"), dtype, samples),
                 record.at(std::string(name_of(dtype))), dtype == DType::f64 ? 1e-9 : 1e-4);
  }
}

}  // namespace
}  // namespace sg
