#include "examples/common/options.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "core/cuda/cuda.h"
#include "core/did_you_mean.h"
#include "dist/plan.h"
#include "dist/stop_signals.h"
#include "optim/adam.h"
#include "optim/sgd.h"

namespace sg::examples {
namespace {

constexpr int kMostRanks = 1024;  // each is a thread; more is a typing error
constexpr std::string_view kOptimizers[] = {"sgd", "adam", "adamw"};
constexpr std::string_view kExecutors[] = {"auto", "inline", "thread"};
constexpr std::string_view kDevices[] = {"cpu", "cuda"};
constexpr std::string_view kDTypes[] = {"f32", "bf16", "f64"};

/// CLI11's complaint in one line, with the nearest option where the name is unknown.
std::string usage_message(const CLI::App& app, const CLI::ParseError& error) {
  const std::string see = fmt::format("`{} --help` lists the options", app.get_name());
  const std::vector<std::string> rest = app.remaining();
  if (dynamic_cast<const CLI::ExtrasError*>(&error) == nullptr || rest.empty())
    return fmt::format("{}; {}", error.what(), see);
  const std::string unknown = rest.front().substr(0, rest.front().find('='));
  if (!unknown.starts_with("-"))
    return fmt::format("unexpected argument '{}': every value follows its option; {}", unknown,
                       see);
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) names.push_back(option->get_name());
  const std::vector<std::string_view> views(names.begin(), names.end());
  return fmt::format("there is no option {}{} ({})", unknown, did_you_mean(unknown, views), see);
}

void check_batch(TrainOptions& o, bool given) {
  const std::int64_t slices = std::int64_t{o.ranks} * o.accumulate;
  if (!given) o.batch_size = 16 * slices;
  SG_CHECK(o.batch_size >= 1,
           "--batch-size {}: a step needs at least one sample; use a multiple "
           "of ranks x accumulate = {}",
           o.batch_size, slices);
  if (o.batch_size % slices == 0) return;
  const std::int64_t below = o.batch_size / slices * slices;
  const std::string sizes = below > 0 ? fmt::format("{} or {}", below, below + slices)
                                      : fmt::format("{}", below + slices);
  fail(
      "--batch-size {}: {} ranks x {} micro-batches need equal whole micro-batches; the nearest "
      "sizes that work: {}",
      o.batch_size, o.ranks, o.accumulate, sizes);
}

std::vector<std::string_view> plan_names() {
  std::vector<std::string_view> names;
  for (const dist::Plan& plan : dist::plans()) names.push_back(plan.name);
  return names;
}

void check_plan(const TrainOptions& o, bool by_stage, Plans plans) {
  std::vector<std::string_view> names = plan_names();
  const bool number = o.plan.size() == 1 && o.plan >= "0" && o.plan <= "3";
  SG_CHECK(number || !by_stage,
           "--stage {}: use DeepSpeed's number of the plan: 0 (ddp), 1, 2 or 3 (zero1 to zero3)",
           o.plan);
  if (plans == Plans::all_too) names.push_back("all");
  if (!number) check_choice("--plan", o.plan, names);
}

// A GPU where there is one: threads share it, each process must have its own. Sets why_cpu where
// the machine has GPUs and they are not used.
std::string usual_device(std::string& why_cpu) {
  if (cuda::device_count() == 0) return "cpu";
  if (const auto process = dist::process_environment(); process && process->world_size > 1)
    why_cpu = dist::why_no_gpu(*process, dist::backend_by_environment());
  return why_cpu.empty() ? "cuda" : "cpu";
}

void check(TrainOptions& o, bool batch_given) {
  SG_CHECK(o.ranks >= 1, "--ranks {}: there must be at least one rank; use --ranks 1 or more",
           o.ranks);
  SG_CHECK(o.ranks <= kMostRanks, "--ranks {}: each rank is a thread; use at most {}", o.ranks,
           kMostRanks);
  SG_CHECK(o.accumulate >= 1 && o.accumulate <= 1'000'000,
           "--accumulate {}: use 1 (none) to 1000000 micro-batches", o.accumulate);
  check_batch(o, batch_given);
  SG_CHECK(o.threads >= 1 && o.threads <= kMostRanks,
           "--threads {}: use 1 to {} compute threads a rank", o.threads, kMostRanks);
  SG_CHECK(!o.steps || *o.steps >= 0, "--steps {}: use 0 (no training) or more",
           o.steps.value_or(0));
  SG_CHECK(std::isfinite(o.clip_norm) && o.clip_norm >= 0,
           "--clip-norm {}: use a positive norm, or 0 for no clipping", o.clip_norm);
  check_choice("--optimizer", o.optimizer, kOptimizers);
  check_choice("--executor", o.executor, kExecutors);
  check_choice("--device", o.device, kDevices);
  SG_CHECK(o.dtype != "f16",
           "--dtype f16: its gradients underflow without a scaled loss; use bf16, or f32");
  check_choice("--dtype", o.dtype, kDTypes);
  SG_CHECK(o.device == "cpu" || cuda::device_count() > 0,
           "--device cuda: there is no GPU to use: {}; use --device cpu", cuda::why_none());
  if (const auto process = dist::process_environment();
      o.device == "cuda" && process && process->world_size > 1) {
    const std::string why = dist::why_no_gpu(*process, dist::backend_by_environment());
    SG_CHECK(why.empty(), "--device cuda: {}", why);
  }
  SG_CHECK(!o.momentum || o.optimizer == "sgd",
           "--momentum: {} has no momentum of that name; use --optimizer sgd, or leave it out",
           o.optimizer);
  make_optimizer(o);  // throws what the optimizer says of its hyperparameters
}

}  // namespace

DType TrainOptions::element_type() const {
  return dtype == "f64" ? DType::f64 : dtype == "bf16" ? DType::bf16 : DType::f32;
}

DType TrainOptions::loss_type() const { return dtype == "f64" ? DType::f64 : DType::f32; }

void add_options(CLI::App& app, TrainOptions& o, Plans plans) {
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.add_option("--ranks", o.ranks, "ranks, threads of this process (1)");
  auto* plan = app.add_option(
      "--plan", o.plan,
      fmt::format("{}{}, or DeepSpeed's stage 0 to 3 (ddp)", fmt::join(plan_names(), ", "),
                  plans == Plans::one ? "" : ", all (one after the other)"));
  auto* stage = app.add_option("--stage", o.plan, "the plan by DeepSpeed's number, 0 to 3");
  stage->excludes(plan);
  app.add_option("--batch-size", o.batch_size,
                 "samples of one optimizer step, over all ranks and micro-batches (16 for each)");
  app.add_option("--accumulate", o.accumulate, "micro-batches a rank and step (1)");
  app.add_option("--steps", o.steps,
                 fmt::format("optimizer steps; 0 trains nothing ({})",
                             o.steps ? fmt::format("{}", *o.steps) : "as many as the epochs have"));
  app.add_option("--threads", o.threads, "compute threads a rank (cores / ranks)");
  app.add_option("--seed", o.seed, "of initial weights, order and augmentation (0)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--optimizer", o.optimizer, "sgd, adam or adamw (adam)");
  app.add_option("--lr", o.lr, "learning rate (0.001)");
  app.add_option("--momentum", o.momentum, "of sgd (0)");
  app.add_option("--weight-decay", o.weight_decay, "of every parameter (0; adamw: 0.01)");
  app.add_option("--clip-norm", o.clip_norm, "largest global norm of the gradients (0: no limit)");
  app.add_option("--executor", o.executor,
                 "who runs collectives: inline, thread (a comm thread a rank) or auto (auto)");
  app.add_option("--device", o.device, "cpu or cuda (cuda where there is one, for each process)");
  app.add_option("--dtype", o.dtype,
                 "of parameters and activations: f32, bf16 (sums stay f32) or f64 (f32)");
  app.add_flag_callback(
      "--no-prefetch", [&o] { o.prefetch = false; },
      "zero3: gather each unit only when it is used");
  app.add_flag_callback(
      "--no-graphs", [&o] { o.graphs = false; },
      "cuda: launch every kernel by itself, capture nothing as a CUDA graph");
}

void parse(CLI::App& app, TrainOptions& options, int argc, char** argv, Plans plans) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    std::exit(0);
  } catch (const CLI::ParseError& error) {
    throw InputError(usage_message(app, error));
  }
  options.command_line = fmt::format("{}", fmt::join(argv + 1, argv + argc, " "));
  checked_input([&] {
    if (const auto process = dist::process_environment()) {
      options.speaks = process->rank == 0;
      if (app.count("--ranks") > 0 && options.speaks)
        fmt::print("--ranks is ignored: {} started {} processes, each a rank\n", process->launcher,
                   process->world_size);
      options.ranks = process->world_size;
      if (app.count("--threads") == 0) options.threads = dist::default_threads(*process);
    } else if (app.count("--threads") == 0 && options.ranks >= 1) {
      options.threads = dist::default_threads(options.ranks);
    }
    if (options.device.empty()) options.device = usual_device(options.why_cpu);
    check_plan(options, app.count("--stage") > 0, plans);
    check(options, app.count("--batch-size") > 0);
  });
}

optim::OptimizerPtr make_optimizer(const TrainOptions& o) {
  if (o.optimizer == "sgd")
    return optim::sgd({.lr = o.lr,
                       .momentum = o.momentum.value_or(0),
                       .weight_decay = o.weight_decay.value_or(0)});
  if (o.optimizer == "adam")
    return optim::adam({.lr = o.lr, .weight_decay = o.weight_decay.value_or(0)});
  optim::AdamWOptions adamw{.lr = o.lr};
  adamw.weight_decay = o.weight_decay.value_or(adamw.weight_decay);
  return optim::adamw(adamw);
}

dist::LaunchOptions launch_options(const TrainOptions& o) {
  dist::LaunchOptions launch{.threads = o.threads, .seed = o.seed};
  launch.device = device_of(o.device);
  if (o.plan == "all") launch.deterministic = true;  // plans are compared to the last bit
  if (o.executor != "auto")
    launch.executor = o.executor == "thread" ? dist::Executor::thread : dist::Executor::inlined;
  return launch;
}

dist::EngineOptions engine_options(const TrainOptions& o, std::string_view plan) {
  return {.plan = std::string(plan),
          .accumulate = o.accumulate,
          .clip_norm = o.clip_norm,
          .graphs = o.graphs,
          .prefetch = o.prefetch};
}

void check_choice(std::string_view option, std::string_view value,
                  std::span<const std::string_view> choices) {
  if (std::find(choices.begin(), choices.end(), value) != choices.end()) return;
  fail("{} {}: there is none of that name{} ({})", option, value, did_you_mean(value, choices),
       fmt::join(choices, ", "));
}

int run_program(std::string_view name, const std::function<int()>& body) {
  const auto say = [&](std::string_view prefix, std::string message) {
    std::replace(message.begin(), message.end(), '\n', ' ');
    std::fflush(stdout);
    fmt::print(stderr, "{}: {}{}\n", name, prefix, message);
  };
  try {
    return body();
  } catch (const InputError& error) {
    say("", error.what());
    return kInputErrorStatus;
  } catch (const dist::Stopped& stopped) {
    say("", stopped.what());
    return kInterruptedStatus;
  } catch (const std::exception& error) {
    say("failed: ", error.what());
    return 1;
  }
}

}  // namespace sg::examples
