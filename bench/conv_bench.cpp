// Convolutions of the example nets, each pass beside the machine's peak (independent fused
// multiply-adds on as many threads) and beside oneDNN's for the same pass, all in turns in the same
// run. `ratio` is the peak's time for as many operations as the definition has over ours;
// Winograd's kernels need fewer. `onednn_ratio` is oneDNN's time over ours: 1 where it is what
// serves. Its time includes reading and writing the net's memory layout, as ours does.
#include <benchmark/benchmark.h>

#include <string>
#include <utility>
#include <vector>

#include "bench/measure.h"
#include "bench/peak.h"
#include "core/conv.h"

namespace sg {
namespace {

using ops::ConvAlgorithm;

enum Pass : std::int64_t { kForward, kBackwardData, kBackwardWeights };

struct Layer {
  const char* name;
  std::int64_t batch, channels, size, filters, kernel, stride, padding;
  bool bias = true;
};
constexpr Layer kLayers[] = {
    {"tutorial.conv1", 32, 3, 32, 6, 5, 1, 0},
    {"tutorial.conv2", 32, 6, 14, 16, 5, 1, 0},
    {"vgg.first", 128, 3, 32, 32, 3, 1, 1},
    {"vgg.32x32", 128, 32, 32, 32, 3, 1, 1},
    {"vgg.16x16", 128, 64, 16, 64, 3, 1, 1},
    {"vgg.8x8", 128, 128, 8, 128, 3, 1, 1},
    {"resnet20.conv1", 128, 3, 32, 16, 3, 1, 1, false},
    {"resnet20.stage1", 128, 16, 32, 16, 3, 1, 1, false},
    {"resnet20.stage2.0", 128, 16, 32, 32, 3, 2, 1, false},
    {"resnet20.stage2", 128, 32, 16, 32, 3, 1, 1, false},
    {"resnet20.stage3", 128, 64, 8, 64, 3, 1, 1, false},
};

Tensor filled(const Shape& shape) {
  const Tensor t = Tensor::empty(shape);
  for (std::int64_t i = 0; i < t.numel(); ++i)
    t.data<float>()[i] = 0.125f * static_cast<float>(i % 13 - 6);
  return t;
}

void Conv2d(benchmark::State& state, const Layer& layer, Pass pass) {
  Rank rank(0, 1, static_cast<int>(state.range(0)), 0);
  const RankScope scope(rank);
  const Conv2dOptions options{.stride = {layer.stride, layer.stride},
                              .padding = {layer.padding, layer.padding}};
  const Tensor weight = filled({layer.filters, layer.channels, layer.kernel, layer.kernel});
  const Tensor bias = layer.bias ? filled({layer.filters}) : Tensor();
  const Tensor image = filled({layer.batch, layer.channels, layer.size, layer.size});
  const ConvAlgorithm chosen =
      ops::conv2d_algorithm(image.shape(), weight.shape(), DType::f32, options);
  const Tensor y = ops::conv2d(image, weight, bias, options);
  // An image comes row-major from the loader; between layers the chosen kernel's layout settles.
  const bool channels_last = y.is_channels_last();
  const Tensor x = channels_last && layer.channels > 3 ? image.channels_last() : image;
  const Tensor grad = channels_last ? filled(y.shape()).channels_last() : filled(y.shape());
  const Tensor weight_grad = Tensor::empty(weight.shape()),
               bias_grad = layer.bias ? Tensor::empty({layer.filters}) : Tensor();

  const auto run = [&](ConvAlgorithm algorithm) {
    if (pass == kForward) {
      benchmark::DoNotOptimize(ops::conv2d(x, weight, bias, options, algorithm).raw_data());
      return;
    }
    ops::Conv2dGrads wanted;
    wanted.x = pass == kBackwardData;
    if (pass == kBackwardWeights) {
      wanted.weight = weight_grad;
      wanted.bias = bias_grad;
    }
    benchmark::DoNotOptimize(ops::conv2d_backward(grad, {}, x, weight, x.shape(), weight.shape(),
                                                  options, wanted, algorithm));
  };
  const double operations = 2.0 * static_cast<double>(y.numel() * weight.numel() / layer.filters);
  std::vector<double> times, peaks, theirs;
  for (auto _ : state) {
    peaks.push_back(bench::seconds_at_peak<float>(operations, rank.threads));
    run(chosen);  // what the peak has put to sleep or thrown out of the cache is back
    times.push_back(bench::seconds([&] { run(chosen); }));
    state.SetIterationTime(times.back());
#if SG_ONEDNN
    if (chosen != ConvAlgorithm::onednn) {
      run(ConvAlgorithm::onednn);
      theirs.push_back(bench::seconds([&] { run(ConvAlgorithm::onednn); }));
    }
#endif
  }
  state.SetLabel(ops::name_of(chosen));
  bench::report(state, "GFLOP/s", 1e-9 * operations, times, peaks);
#if SG_ONEDNN
  state.counters["onednn_ratio"] =
      theirs.empty() ? 1 : bench::quantile(theirs, 0.5) / bench::quantile(times, 0.5);
#endif
}

[[maybe_unused]] const bool kRegistered = [] {
  for (const Layer& layer : kLayers)
    for (const auto& [name, pass] : {std::pair{"forward", kForward},
                                     {"backward_data", kBackwardData},
                                     {"backward_weights", kBackwardWeights}}) {
      if (pass == kBackwardData && layer.channels == 3) continue;  // an image needs no gradient
      auto* b = benchmark::RegisterBenchmark(
          (std::string("Conv2d/") + layer.name + "/" + name).c_str(),
          [&layer, pass = pass](benchmark::State& state) { Conv2d(state, layer, pass); });
      b->ArgName("threads")->Arg(1)->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(30);
      if (available_cores() > 1) b->Arg(2);
    }
  return true;
}();

}  // namespace
}  // namespace sg
