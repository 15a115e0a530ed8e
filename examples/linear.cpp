// linear: the smallest whole training run. A 10 -> 10 linear layer learns one fixed batch in ten steps of Adam, on any
// number of ranks, under any plan:
//
//   linear --ranks 4 --plan zero3
//
// Try `--ranks 1 --accumulate 4`, or another plan: the losses are the same to the last bit.
#include <fmt/format.h>

#include "core/rng.h"
#include "dist/engine.h"
#include "dist/launch.h"
#include "examples/common/options.h"
#include "nn/nn.h"

using namespace sg;

constexpr std::int64_t kSize = 10;  // inputs, and classes

// Samples [first, first + count) of the fixed batch: random inputs and labels, a function of the sample's place alone.
std::pair<Tensor, Tensor> make_batch(std::uint64_t seed, std::int64_t first, std::int64_t count) {
  const Tensor inputs = Tensor::empty({count, kSize}), labels = Tensor::empty({count}, DType::i64);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto sample = static_cast<std::uint64_t>(first + i);
    for (std::int64_t k = 0; k < kSize; ++k)
      inputs.data<float>()[i * kSize + k] =
          2 * uniform_float(philox(seed, sample, static_cast<std::uint64_t>(k))[0]) - 1;
    labels.data<std::int64_t>()[i] = philox(seed, sample, kSize)[0] % kSize;
  }
  return {inputs, labels};
}

int run(int argc, char** argv) {
  examples::TrainOptions options{.steps = 10};
  CLI::App app("Trains a 10 -> 10 linear layer on one fixed batch, on N ranks under any plan.", "linear");
  add_options(app, options);
  parse(app, options, argc, argv);

  // Each rank is a thread that runs this function.
  dist::launch_ranks(options.ranks, [&](Rank& rank) {
    // A plain module and a plain optimizer. The plan decides who keeps what; nothing below depends on it.
    auto net = nn::share(nn::Linear(kSize, kSize));
    auto engine = dist::initialize(net, make_optimizer(options), engine_options(options, options.plan));

    // A step's batch is cut into ranks x accumulate slices; micro-batch a of rank r is slice a N + r.
    std::vector<std::pair<Tensor, Tensor>> micro_batches;
    for (int a = 0; a < options.accumulate; ++a)
      micro_batches.push_back(make_batch(
          rank.seed, (a * rank.world_size + rank.index) * options.micro_batch(), options.micro_batch()));

    while (engine->steps() < *options.steps) {
      for (const auto& [inputs, labels] : micro_batches)
        engine->backward(nn::cross_entropy((*engine)(inputs), labels));
      engine->step();
      // The mean over the whole batch, the same on every rank.
      if (rank.index == 0) fmt::print("step {:2}  loss {:.6f}\n", engine->steps(), engine->loss());
    }

    const dist::Report report = engine->report();  // memory and traffic, as predicted and as measured
    if (rank.index == 0) fmt::print("\n{}", report.text());
  }, launch_options(options));
  return 0;
}

int main(int argc, char** argv) {
  return examples::run_program("linear", [&] { return run(argc, argv); });
}
