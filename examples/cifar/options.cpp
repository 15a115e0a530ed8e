#include "examples/cifar/options.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>

#include "core/kernels/isa.h"
#include "examples/cifar/nets.h"
#include "examples/common/progress.h"

namespace sg::cifar {
namespace {

constexpr std::string_view kSchedules[] = {"constant", "cosine"};
constexpr std::int64_t kMostEpochs = 1'000'000'000;

optim::Schedule make_schedule(const Options& o, std::int64_t steps) {
  if (o.schedule == "cosine" && steps > 0) return optim::Schedule::cosine(steps, o.warmup_steps);
  return optim::Schedule::warmup(o.warmup_steps);
}

/// The file or, where there is none yet, its folder must be one that this user may write in.
void check_writable(std::string_view option, const std::string& file) {
  namespace fs = std::filesystem;
  if (file.empty()) return;
  std::error_code error;
  const bool existed = fs::exists(file, error);
  const bool good = !fs::is_directory(file, error) && std::ofstream(file, std::ios::app).good();
  if (good && !existed) fs::remove(file, error);
  SG_CHECK(good,
           "{} {}: cannot write there; name a file in an existing folder that you may write in",
           option, file);
}

}  // namespace

std::vector<const dist::Plan*> Options::plans() const {
  if (plan != "all") return {&dist::find_plan(plan)};
  std::vector<const dist::Plan*> all;
  for (const dist::Plan& row : dist::plans()) all.push_back(&row);
  return all;
}

Options parse_options(int argc, char** argv) {
  Options o;
  CLI::App app(
      "Trains a net on CIFAR-10 (or a synthetic set of its format) on N ranks under DDP or a stage "
      "of\n"
      "ZeRO, and prints memory and traffic as predicted and as measured.\n"
      "Exit status: 0 done; 1 training failed, memory or traffic is not as predicted or, with "
      "--plan\n"
      "all, a bit differs; 2 bad usage or input; 130 stopped by Ctrl-C or SIGTERM, after the step "
      "it\n"
      "was in.",
      "cifar");
  app.add_option("--data", o.data,
                 "'synthetic', or a folder with CIFAR-10's binary files (synthetic)");
  app.add_option("--net", o.net, "tutorial, mlp, vgg or resnet20 (tutorial)");
  app.add_option("--epochs", o.epochs, "epochs; with --steps, whichever ends first (2)");
  add_options(app, o, examples::Plans::all_too);
  app.add_option("--schedule", o.schedule, "learning rate: constant or cosine (constant)");
  app.add_option("--warmup-steps", o.warmup_steps, "steps of linear warm-up (0)");
  app.add_flag("--augment", o.augment, "random flip and crop");
  app.add_flag_callback(
      "--no-shuffle", [&o] { o.shuffle = false; }, "the files' own order of samples");
  app.add_flag_callback(
      "--no-eval", [&o] { o.evaluate = false; }, "no test accuracy");
  app.add_flag("--checkpoint-activations", o.checkpoint_activations,
               "recompute activations in backward instead of keeping them");
  app.add_option("--init", o.init, "initial weights, a safetensors file (drawn by --seed)");
  app.add_option(
      "--save-weights", o.save_weights,
      "writes the weights as safetensors at the end (with --plan all: the first plan's)");
  app.add_option("--log-interval", o.log_interval, "a loss line every so many steps (100)");
  app.add_option("--metrics", o.metrics, "file that gets a JSON line a step, and a summary a plan");
  examples::parse(app, o, argc, argv, examples::Plans::all_too);

  examples::checked_input([&] {
    examples::check_choice("--net", o.net, net_names());
    examples::check_choice("--schedule", o.schedule, kSchedules);
    SG_CHECK(o.epochs >= 0 && o.epochs <= kMostEpochs, "--epochs {}: use 0 (no training) to {}",
             o.epochs, kMostEpochs);
    SG_CHECK(o.log_interval >= 1, "--log-interval {}: use 1 or more steps", o.log_interval);
    SG_CHECK(o.warmup_steps >= 0, "--warmup-steps {}: use 0 (none) or more", o.warmup_steps);
    kernels::active_isa();  // throws if SHARDGRAD_ISA asks for what is not there
    if (!o.speaks) return;  // rank 0 writes
    check_writable("--metrics", o.metrics);
    check_writable("--save-weights", o.save_weights);
  });
  return o;
}

std::int64_t steps_to_train(const Options& o, std::int64_t training_images) {
  return std::min(o.epochs * (training_images / o.batch_size),
                  o.steps.value_or(std::numeric_limits<std::int64_t>::max()));
}

data::LoaderOptions loader_options(const Options& o) {
  return {.batch_size = o.batch_size,
          .accumulate = o.accumulate,
          .shuffle = o.shuffle,
          .augment = o.augment ? data::Augment::standard() : data::Augment{},
          .dtype = o.element_type()};
}

dist::EngineOptions engine_options(const Options& o, const dist::Plan& plan, std::int64_t steps) {
  dist::EngineOptions engine = examples::engine_options(o, plan.name);
  engine.grad_norm = !o.metrics.empty();
  engine.schedule = make_schedule(o, steps);
  return engine;
}

void check_against(const Options& o, const data::Splits& data) {
  const std::int64_t images = data.train->size(), slices = o.batch_size / o.micro_batch();
  SG_CHECK(
      o.batch_size <= images,
      "--batch-size {}: {} has {} images, and training drops an incomplete batch; use at most {}",
      o.batch_size, data.train->name, images, images / slices * slices);
  const std::int64_t steps = steps_to_train(o, images);
  SG_CHECK(o.schedule != "cosine" || o.warmup_steps <= steps || steps == 0,
           "--warmup-steps {}: the whole run has {} steps; use fewer, or train longer",
           o.warmup_steps, steps);
}

std::string settings_text(const Options& o, const dist::Job& job, const data::Splits& data,
                          std::int64_t parameters) {
  using examples::thousands;
  std::string text;
  const auto row = [&](std::string_view name, const std::string& value) {
    text += fmt::format("{:<11} {}\n", name, value);
  };
  const auto if_set = [](bool set, std::string_view what) {
    return set ? fmt::format(", {}", what) : std::string();
  };
  const optim::OptimizerPtr optimizer = make_optimizer(o);
  const optim::Hyper& hyper = optimizer->defaults();
  row("net", fmt::format("{}, {} parameters, {}{}", o.net, thousands(parameters), o.dtype,
                         if_set(o.checkpoint_activations, "activations recomputed")));
  row("data", fmt::format("{}: {} images for training, {} for testing{}{}", o.data,
                          thousands(data.train->size()), thousands(data.test->size()),
                          if_set(!o.shuffle, "not shuffled"), if_set(o.augment, "flip and crop")));
  std::string plans;
  for (const dist::Plan* plan : o.plans())
    plans += fmt::format("{}{}", plans.empty() ? "" : ", ", plan->name);
  row("plan", fmt::format("{} on {} rank{}", plans, o.ranks, o.ranks == 1 ? "" : "s"));
  row("batch", fmt::format("{} = {} rank{} x {} micro-batch{} of {}", o.batch_size, o.ranks,
                           o.ranks == 1 ? "" : "s", o.accumulate, o.accumulate == 1 ? "" : "es",
                           o.micro_batch()));
  row("steps", fmt::format("{} ({} an epoch)", thousands(steps_to_train(o, data.train->size())),
                           thousands(data.train->size() / o.batch_size)));
  row("optimizer",
      fmt::format(
          "{}, lr {}{}{}{}{}{}", optimizer->name(), hyper.lr,
          if_set(hyper.momentum > 0, fmt::format("momentum {}", hyper.momentum)),
          if_set(hyper.weight_decay > 0, fmt::format("weight decay {}", hyper.weight_decay)),
          if_set(o.clip_norm > 0, fmt::format("gradient norm at most {}", o.clip_norm)),
          if_set(o.schedule != "constant", o.schedule),
          if_set(o.warmup_steps > 0, fmt::format("{} steps of warm-up", o.warmup_steps))));
  if (!o.why_cpu.empty()) row("device", fmt::format("cpu: {}", o.why_cpu));
  if (o.device != "cpu")
    row("device", fmt::format("{}; CUDA graphs: {}", o.device,
                              !o.graphs     ? "none"
                              : o.ranks > 1 ? "updates (several ranks wait for each other)"
                              : job.backend() == dist::Backend::nccl
                                  ? "updates (NCCL's collectives are watched from the CPU)"
                                  : "micro-batches and updates"));
  row("threads",
      fmt::format("{} a rank{}, instruction set {}", o.threads,
                  if_set(!SG_OPENMP && o.threads > 1, "one core does the work of all (no OpenMP)"),
                  kernels::name_of(kernels::active_isa())));
  row("executor", job.executor() == dist::Executor::thread ? "a comm thread a rank" : "inline");
  if (!job.launcher().empty())
    row("ranks", fmt::format("processes started by {}, over {}", job.launcher(),
                             o.device == "cpu" ? "Gloo" : "NCCL"));
  row("seed", fmt::format("{}", o.seed));
  if (!o.init.empty()) row("weights", o.init);
  return text;
}

}  // namespace sg::cifar
