// cifar: trains a small net on N ranks under DDP and the stages of ZeRO. In the order in which it
// happens:
//
//   options.cpp    what the user wants
//   nets.cpp       the nets, plain modules that know of no rank
//   train.cpp      the loop: initialize, forward, backward, step
//   evaluate.cpp   test accuracy, by all ranks together
//   compare.cpp    --plan all: are the plans equal to the last bit, and is every byte as predicted?
//
// Compare data/ for the data sets, dist/engine.h for what makes a net distributed.
#include <fmt/format.h>

#include <cstdio>

#include "core/safetensors.h"
#include "dist/job.h"
#include "dist/stop_signals.h"
#include "examples/cifar/compare.h"
#include "examples/cifar/nets.h"
#include "examples/cifar/train.h"
#include "nn/weights.h"

using namespace sg;
using namespace sg::cifar;

namespace {

/// Everything that can be wrong with the input is found here, before a rank is started.
data::Splits check_input(const Options& options) {
  return examples::checked_input([&] {
    const data::Splits data = data::open(options.data);
    check_against(options, data);
    if (!options.init.empty())
      nn::match_tensors(SafetensorsFile(options.init),
                        nn::expected_tensors(*make_net(options.net)));
    return data;
  });
}

/// What rank 0 says for all; other processes only train. A pipe shows it before the work begins.
void say(const dist::Job& job, std::string_view text) {
  if (!job.speaks()) return;
  fmt::print("{}", text);
  std::fflush(stdout);
}

int run(const Options& options) {
  const data::Splits data = check_input(options);
  dist::Job job(options.ranks, launch_options(options), options.command_line);
  say(job, settings_text(options, job, data, make_net(options.net)->parameter_count()));
  std::optional<Metrics> metrics;
  if (!options.metrics.empty() && job.speaks()) metrics.emplace(options.metrics);
  dist::install_stop_signals();  // Ctrl-C ends the run after the step under way

  std::vector<Result> results;
  const std::vector<const dist::Plan*> plans = options.plans();
  for (const dist::Plan* plan : plans) {
    say(job, fmt::format("\n{}\n", plan->name));
    const bool save = !options.save_weights.empty() && results.empty();
    results.push_back(train({job, options, *plan, data, metrics ? &*metrics : nullptr, save}));
    const Result& result = results.back();
    if (result.accuracy) say(job, result.accuracy->text(results.size() == 1));
    if (plans.size() == 1) say(job, "\n" + result.report.text());
    if (metrics) metrics->add_summary(result);
    if (result.interrupted) break;
  }
  if (metrics) metrics->finish();

  if (results.back().interrupted) {
    say(job, fmt::format("stopped by a signal after step {} of {}\n", results.back().steps.size(),
                         steps_to_train(options, data.train->size())));
    return examples::kInterruptedStatus;
  }
  if (!job.speaks()) return 0;  // rank 0 has the numbers of all, and compares
  if (plans.size() == 1) {
    SG_CHECK(results[0].report.matches() && results[0].report.is_alone(),
             "[report] memory or traffic is not as predicted; the lines above say where");
    return 0;
  }
  const Comparison comparison = compare(results);
  fmt::print("\n{}", comparison.text);
  SG_CHECK(comparison.equal, "[compare] a bit or a byte differs; the lines above say where");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return examples::run_program("cifar", [&] { return run(parse_options(argc, argv)); });
}
