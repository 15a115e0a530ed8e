// Trains a test net by the engine, and without it.
#pragma once

#include <cmath>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "dist/engine.h"
#include "optim/adam.h"
#include "optim/clip.h"
#include "optim/sgd.h"
#include "optim/span_optimizer.h"
#include "tests/dist/nets.h"
#include "tests/dist/support.h"

namespace sg::dist {

inline const char* const kPlanNames[] = {"ddp", "zero1", "zero2", "zero3"};

struct Training {
  std::string plan = "ddp";
  int ranks = 1, accumulate = 1;
  int steps = 3;
  std::int64_t micro_batch = 2;
  DType dtype = DType::f32;
  std::string optimizer = "adam";  ///< adam, adamw (biases without decay) or momentum
  double clip_norm = 0;
  bool prefetch = true;
  Executor executor = Executor::inlined;
  int threads = 1;
  std::int64_t unit_elements = 0;
  optim::Schedule schedule = {};
  Backend backend = Backend::automatic;
  bool deterministic = true;
  bool micro_batches = false;  ///< by Engine::micro_batch()
  bool graphs = true;
  bool grad_norm = true;
};

inline std::string to_string(const Training& t) {
  return fmt::format("{} {}x{} {} {} clip {}{}{}", t.plan, t.ranks, t.accumulate, name_of(t.dtype),
                     t.optimizer, t.clip_norm, t.prefetch ? "" : " no-prefetch",
                     t.executor == Executor::thread ? " comm-thread" : "");
}

inline optim::OptimizerPtr make_optimizer(const Training& t) {
  if (t.optimizer == "momentum") return optim::sgd({.lr = 0.05, .momentum = 0.9, .nesterov = true});
  if (t.optimizer == "adamw") return optim::adamw({.lr = 0.02, .weight_decay = 0.1});
  return optim::adam({.lr = 0.02});
}

inline std::vector<Group> make_groups(const Training& t) {
  if (t.optimizer == "adamw") return {no_decay()};
  return {};
}

/// What training gave, all as bits of doubles so that they may be compared exactly.
struct Outcome {
  std::vector<double> losses, norms;
  std::map<std::string, std::vector<double>> parameters, gradients, states;
  std::vector<Report> reports;  ///< by rank

  /// "" if all bits are equal, else what differs first.
  std::string difference(const Outcome& other) const {
    const auto same = [](const std::vector<double>& a, const std::vector<double>& b) {
      return bits_of(a) == bits_of(b);
    };
    if (!same(losses, other.losses))
      return fmt::format("losses {} and {}", fmt::join(losses, " "), fmt::join(other.losses, " "));
    if (!same(norms, other.norms))
      return fmt::format("norms {} and {}", fmt::join(norms, " "), fmt::join(other.norms, " "));
    const std::pair<const std::map<std::string, std::vector<double>>*,
                    const std::map<std::string, std::vector<double>>*>
        maps[] = {{&parameters, &other.parameters},
                  {&gradients, &other.gradients},
                  {&states, &other.states}};
    for (const auto& [mine, theirs] : maps) {
      if (mine->size() != theirs->size()) return "number of tensors";
      for (const auto& [name, values] : *mine)
        if (!theirs->contains(name) || !same(values, theirs->at(name)))
          return fmt::format("{}: {} and {}", name, fmt::join(values, " "),
                             fmt::join(theirs->at(name), " "));
    }
    return "";
  }
};

/// Of what is added up of values of `dtype`.
inline DType sum_dtype(DType dtype) { return is_half(dtype) ? DType::f32 : dtype; }

/// In f32 where the net computes in bf16, as programs do it.
inline Var squared_error(const Var& output, const Tensor& target) {
  const DType dtype = sum_dtype(output.dtype());
  return mse_loss(cast(output, dtype), target.to(dtype));
}

/// One step of the engine on this rank's micro-batches, by `micro_batch` unless it is null.
inline void train_step(Engine& engine, const TestNet& net, const Training& t, std::int64_t step,
                       MicroBatch* micro_batch = nullptr) {
  const Rank& rank = current_rank();
  for (int a = 0; a < t.accumulate; ++a) {
    const auto [x, target] =
        net.batch(step, (a * t.ranks + rank.index) * t.micro_batch, t.micro_batch, t.dtype);
    if (micro_batch != nullptr)
      (*micro_batch)({x, target});
    else
      engine.backward(squared_error(engine(x), target));
    EXPECT_EQ(engine.step(), a + 1 == t.accumulate);
  }
}

inline EngineOptions engine_options(const Training& t) {
  return {.plan = t.plan,
          .accumulate = t.accumulate,
          .clip_norm = t.clip_norm,
          .grad_norm = t.grad_norm,
          .schedule = t.schedule,
          .groups = make_groups(t),
          .graphs = t.graphs,
          .prefetch = t.prefetch,
          .unit_elements = t.unit_elements};
}

inline nn::ModulePtr make_module(const TestNet& net, const Training& t) {
  const nn::ModulePtr module = net.make();
  if (t.dtype != DType::f32) module->to(t.dtype);
  return module;
}

inline Outcome train(const TestNet& net, const Training& t) {
  std::vector<Outcome> outcomes(static_cast<std::size_t>(t.ranks));
  std::vector<Report> reports(static_cast<std::size_t>(t.ranks));
  launch_ranks(t.ranks,
               [&](Rank& rank) {
                 const nn::ModulePtr module = make_module(net, t);
                 const optim::OptimizerPtr optimizer = make_optimizer(t);
                 const auto engine = initialize(module, optimizer, engine_options(t));
                 Outcome& out = outcomes[static_cast<std::size_t>(rank.index)];
                 MicroBatch micro_batch = engine->micro_batch([&engine](std::span<const Var> x) {
                   return squared_error(engine->module()(x[0]), x[1].value());
                 });
                 for (int step = 0; step < t.steps; ++step) {
                   train_step(*engine, net, t, step, t.micro_batches ? &micro_batch : nullptr);
                   out.losses.push_back(engine->loss());
                   if (t.grad_norm) out.norms.push_back(engine->grad_norm().value());
                 }
                 reports[static_cast<std::size_t>(rank.index)] = engine->report();
                 for (const nn::NamedParameter& p : module->named_parameters()) {
                   out.parameters[p.name] = engine->full_parameter(p.name).to_doubles();
                   if (!p.parameter.requires_grad()) continue;
                   const DType sums = sum_dtype(p.parameter.dtype());
                   const Tensor gradient = engine->full_gradient(p.name);
                   EXPECT_EQ(gradient.dtype(), sums) << p.name;
                   out.gradients[p.name] = gradient.to_doubles();
                   for (const std::string& name : optimizer->state_names()) {
                     const Tensor state = engine->full_state(p.name, name);
                     EXPECT_EQ(state.dtype(), sums) << p.name;
                     out.states[p.name + " " + name] = state.to_doubles();
                   }
                 }
               },
               {.threads = t.threads,
                .seed = 11,
                .deadline = milliseconds(60'000),
                .executor = t.executor,
                .backend = t.backend,
                .deterministic = t.deterministic});
  for (int r = 1; r < t.ranks; ++r)
    EXPECT_EQ(outcomes[0].difference(outcomes[static_cast<std::size_t>(r)]), "") << "rank " << r;
  outcomes[0].reports = std::move(reports);
  return outcomes[0];
}

/// The same training by autograd and a plain optimizer alone: one thread, no units, no collectives.
/// The whole batch at once, unless the net normalises by the statistics of a micro-batch.
inline Outcome train_plainly(const TestNet& net, const Training& t) {
  Rank rank(0, 1, 1, 11);
  const RankScope scope(rank);
  const nn::ModulePtr module = make_module(net, t);
  const std::vector<nn::ParameterView> views = nn::parameter_views(*module);
  const optim::OptimizerPtr optimizer = make_optimizer(t);
  std::vector<optim::SpanOptimizer::Parameter> parameters;
  for (const nn::ParameterView& view : views) {
    const bool decays = t.optimizer != "adamw" || view.value.dim_count() > 1;
    parameters.push_back({view.name, view.value,
                          decays ? optimizer->defaults() : optimizer->group({.weight_decay = 0})});
  }
  optim::SpanOptimizer spans(optimizer, parameters);
  Outcome out;
  const std::int64_t slices = t.ranks * t.accumulate;
  const std::int64_t parts = net.batch_statistics ? slices : 1;
  const std::int64_t rows = slices * t.micro_batch / parts;
  for (int step = 0; step < t.steps; ++step) {
    module->zero_grad();
    double loss = 0;
    for (std::int64_t part = 0; part < parts; ++part) {
      const auto [x, target] = net.batch(step, part * rows, rows, t.dtype);
      rank.state = {.step = step, .first_sample = part * rows};
      const Var mean = squared_error((*module)(x), target) * (1.0 / static_cast<double>(parts));
      loss += mean.item();
      mean.backward();
    }
    out.losses.push_back(loss);
    std::vector<Tensor> gradients = nn::gradients(views);
    double squares = 0;
    for (std::size_t i = 0; i < views.size(); ++i) {
      if (!gradients[i].defined())
        gradients[i] = Tensor::zeros(views[i].value.shape(), views[i].value.dtype());
      const std::vector<double> g = gradients[i].to_doubles();
      for (const double v : g) squares += v * v;
      out.gradients[views[i].name] = g;
    }
    const double norm = std::sqrt(squares);
    out.norms.push_back(norm);
    const double scale = t.clip_norm > 0 ? std::min(1.0, t.clip_norm / (norm + 1e-6)) : 1.0;
    spans.step(gradients, {.clip_scale = scale, .lr_factor = t.schedule.factor(step + 1)});
    nn::mark_changed(views);
  }
  for (const nn::NamedParameter& p : module->named_parameters()) {
    out.parameters[p.name] = p.parameter.value().to_doubles();
    if (!p.parameter.requires_grad()) continue;
    for (const std::string& state : optimizer->state_names())
      out.states[p.name + " " + state] = spans.state(p.name, state).to_doubles();
  }
  return out;
}

/// How far the families of one training may lie apart: rounding, which bf16 makes into steps of
/// Adam's learning rate.
inline double families_apart(const TestNet& net, const Training& t) {
  return net.rough || is_half(t.dtype) ? 0.1 : 1e-3;
}

/// The largest difference of two outcomes, relative to max(1, |value|).
inline void expect_close(const Outcome& got, const Outcome& expected, double tolerance) {
  const auto compare = [&](const std::string& what, const std::vector<double>& a,
                           const std::vector<double>& b) {
    ASSERT_EQ(a.size(), b.size()) << what;
    for (std::size_t i = 0; i < a.size(); ++i)
      ASSERT_LE(std::abs(a[i] - b[i]), tolerance * std::max(1.0, std::abs(b[i])))
          << what << " " << i;
  };
  compare("losses", got.losses, expected.losses);
  compare("norms", got.norms, expected.norms);
  const auto compare_all = [&](const auto& a, const auto& b) {
    ASSERT_EQ(a.size(), b.size());
    for (const auto& [name, values] : b) {
      ASSERT_TRUE(a.contains(name)) << name;
      compare(name, a.at(name), values);
    }
  };
  compare_all(got.gradients, expected.gradients);
  compare_all(got.parameters, expected.parameters);
  compare_all(got.states, expected.states);
}

}  // namespace sg::dist
