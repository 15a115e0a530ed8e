// linear: the smallest whole training run. A 10 -> 10 linear layer learns one fixed batch in ten
// steps of Adam, on any number of ranks, under any plan:
//
//   linear --ranks 4 --plan zero3
//
// Try `--ranks 1 --accumulate 4`, or another plan: the losses are the same to the last bit.
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "core/rng.h"
#include "dist/engine.h"
#include "dist/job.h"
#include "dist/stop_signals.h"
#include "examples/common/options.h"
#include "nn/nn.h"

using namespace sg;

constexpr std::int64_t kSize = 10;  // inputs, and classes

// Samples [first, first + count) of the fixed batch: random inputs and labels, a function of the
// sample's place alone.
std::pair<Tensor, Tensor> make_batch(std::uint64_t seed, std::int64_t first, std::int64_t count) {
  std::vector<float> inputs;
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto sample = static_cast<std::uint64_t>(first + i);
    for (std::int64_t k = 0; k < kSize; ++k)
      inputs.push_back(2 * uniform_float(philox(seed, sample, static_cast<std::uint64_t>(k))[0]) -
                       1);
    labels.push_back(philox(seed, sample, kSize)[0] % kSize);
  }
  return {Tensor::from(inputs, {count, kSize}), Tensor::from(labels, {count})};
}

// What each rank does; a rank is a thread, or a process that a launcher started. No line of it
// depends on the plan or on the number of ranks. False if Ctrl-C ended it early.
bool train(const examples::TrainOptions& options, const Rank& rank) {
  // A plain module and a plain optimizer become an engine. The plan decides who keeps what.
  nn::Linear net(kSize, kSize);
  net.to(options.element_type());
  auto engine =
      dist::initialize(net, make_optimizer(options), engine_options(options, options.plan));

  // The batch is cut into N A slices for N ranks and A micro-batches; micro-batch a of rank r is
  // slice a N + r.
  std::vector<std::pair<Tensor, Tensor>> micro_batches;
  for (int a = 0; a < options.accumulate; ++a) {
    const std::int64_t slice = a * rank.world_size + rank.index;
    auto [inputs, labels] =
        make_batch(rank.seed, slice * options.micro_batch(), options.micro_batch());
    micro_batches.emplace_back(inputs.to(options.element_type()), labels);
  }

  while (engine->steps() < *options.steps && !engine->stop_requested()) {
    for (const auto& [inputs, labels] : micro_batches) {
      const Var outputs = cast((*engine)(inputs), options.loss_type());
      engine->backward(nn::cross_entropy(outputs, labels));
    }
    if (dist::stop_signalled()) engine->request_stop();  // all ranks end after the same step
    engine->step();
    // loss() is the mean over the whole batch, the same on every rank.
    if (rank.index == 0) fmt::print("step {:2}  loss {:.6f}\n", engine->steps(), engine->loss());
  }

  const dist::Report report = engine->report();  // memory and traffic, predicted and measured
  if (rank.index == 0) fmt::print("\n{}", report.text());
  return engine->steps() == *options.steps;
}

int main(int argc, char** argv) {
  return examples::run_program("linear", [&] {
    examples::TrainOptions options{.steps = 10};
    CLI::App app("A 10 -> 10 linear layer learns one fixed batch, on N ranks, any plan.", "linear");
    add_options(app, options);
    parse(app, options, argc, argv);
    dist::Job job(options.ranks, launch_options(options), options.command_line);
    dist::install_stop_signals();
    bool complete = false;
    job.run([&](const Rank& rank) {
      const bool all = train(options, rank);
      if (rank.index == job.first_rank()) complete = all;
    });
    return complete ? 0 : examples::kInterruptedStatus;
  });
}
