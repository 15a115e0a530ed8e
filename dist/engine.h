// The engine: a module, an optimizer and a plan become initialize / forward / backward / step.
//
//   auto engine = dist::initialize(net, optim::adam({.lr = 1e-3}), {.plan = "zero3"});
//   for (auto [images, labels] : loader.epoch(0)) {
//     engine->backward(nn::cross_entropy((*engine)(images), labels));
//     engine->step();
//   }
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dist/dry_run.h"
#include "dist/fingerprint.h"
#include "dist/formula.h"
#include "dist/grad_sink.h"
#include "dist/micro_batch.h"
#include "dist/plan.h"
#include "dist/prefetch.h"
#include "dist/sharded_source.h"
#include "dist/step_loss.h"
#include "dist/unit.h"
#include "nn/module.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"

namespace sg::dist {

/// Parameters with hyperparameters of their own: those of which `matches` is true (name, shape).
/// The first group that matches counts; the others take the optimizer's defaults.
struct Group {
  std::function<bool(const std::string& name, const Shape& shape)> matches;
  optim::GroupOptions options;
};

/// Biases and the weights of norms, all of one dimension: the usual group without weight decay.
Group no_decay();

struct EngineOptions {
  std::string plan = "ddp";  ///< a name of the table, or DeepSpeed's stage number
  int accumulate = 1;        ///< micro-batches a rank and optimizer step
  double clip_norm =
      0;  ///< gradients are scaled so that their global norm is at most this; 0: not at all
  bool grad_norm = false;  ///< compute the norm each step even if nothing is clipped
  optim::Schedule schedule = {};
  std::vector<Group> groups = {};
  bool graphs = true;    ///< capture and replay steps as CUDA graphs where that is safe
  bool prefetch = true;  ///< gather the next unit while this one is used (zero3)
  std::int64_t unit_elements =
      0;  ///< units are merged up to this size; 0: a twentieth of the model
  /// Compare before each step, over all ranks, which collectives were started (fingerprint.h).
  bool debug = debug_by_environment();
  Comm* comm = nullptr;  ///< null: the group of this rank (current_comm())
};

class Engine {
 public:
  using Function = std::function<Var(std::span<const Var>)>;

  /// Takes over the module's parameters: they move into flat units, each rank filling only what it
  /// keeps. Errors: an unknown plan, a bad option, f16 parameters, nothing to train.
  Engine(std::shared_ptr<nn::Module> module, optim::OptimizerPtr optimizer, EngineOptions options);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// The module's forward. Records a graph unless NoGrad is in scope, which makes it evaluation.
  Var operator()(const Var& input) { return forward(input); }
  Var forward(const Var& input);
  /// A forward of several inputs, or one that is more than the module's own (a penalty on the
  /// weights, several uses of the module, the loss); `fn` must depend on its arguments and on
  /// parameters alone. All that the loss takes from parameters belongs in one forward a
  /// micro-batch: what a graph reads elsewhere is computed rightly, but its traffic is not in the
  /// prediction, and report() says so.
  Var forward(const Function& fn, std::span<const Var> inputs);
  /// Backward of one micro-batch's mean loss. Gradients and losses are averaged over the N x A
  /// micro-batches of the step, each with the same weight however many samples it has.
  void backward(const Var& loss);
  /// Both in one call, which a GPU takes as one launch where it can; see dist/micro_batch.h. The
  /// engine must outlive it.
  MicroBatch micro_batch(Function loss);
  /// Why micro_batch() is not captured as a CUDA graph; empty if it is.
  std::string why_no_graphs() const;
  /// After the A-th backward: reduces, clips, updates; true then. Before it does nothing, as in
  /// DeepSpeed.
  bool step();

  // ---- of the last finished step; the same on every rank
  /// Mean loss over the whole batch, micro-batch losses folded in slice order; 0 before the first
  /// step. One rank on a GPU waits here for the losses, and throws what its kernels have found
  /// wrong (an index outside an embedding): the step has updated nothing then. If nobody asks, the
  /// next step throws it, or the next look at parameters, gradients, states or the report.
  double loss() const { return loss_.get(); }
  /// The same, to be read later: a GPU that goes on with the next step meanwhile is never idle.
  const StepLoss& step_loss() const { return loss_; }
  /// Global 2-norm of the mean gradients before clipping; nothing unless clip_norm or grad_norm
  /// asked for it.
  std::optional<double> grad_norm() const { return grad_norm_; }
  double learning_rate() const;
  std::int64_t steps() const { return steps_; }
  /// A rank asks all to stop: after the next step, stop_requested() is true on every rank.
  void request_stop() { stop_wanted_ = true; }
  bool stop_requested() const { return stop_requested_; }

  // ---- inspection: collective, every rank calls them in the same order
  /// A whole parameter, mean gradient (of the step under way, or of the last one until the next
  /// backward) or optimizer state ("exp_avg") by parameter name, in the parameter's shape;
  /// gradients and states of bf16 parameters are f32. Unknown names throw, with those there are.
  Tensor full_parameter(const std::string& name);
  Tensor full_gradient(const std::string& name);
  Tensor full_state(const std::string& name, const std::string& state);
  /// Sets a whole parameter (every rank gives the same values), unit by unit, before training or
  /// between steps.
  void load_parameter(const std::string& name, const Tensor& value);
  /// Writes / reads all parameters and buffers as safetensors, one unit in memory at a time. Rank 0
  /// writes.
  void save_weights(const std::string& path);
  void load_weights(const std::string& path);
  /// Floating buffers (batch norm's running statistics) become their mean over ranks; others rank
  /// 0's. Evaluation and saving call it: during training every rank keeps those of its own
  /// micro-batches.
  void sync_buffers();
  /// Sums over ranks in rank order, for sharded evaluation.
  std::vector<double> sum_over_ranks(const std::vector<double>& values);
  std::vector<std::int64_t> sum_over_ranks(const std::vector<std::int64_t>& values);
  /// Bytes and traffic, predicted beside measured, of every rank. Collective.
  Report report();

  const Plan& plan() const { return plan_; }
  Comm& comm() const { return comm_; }
  const EngineOptions& options() const { return options_; }
  const std::vector<std::unique_ptr<Unit>>& units() const { return units_; }
  nn::Module& module() const { return *module_; }
  std::int64_t parameter_count() const;

 private:
  friend class MicroBatch;
  void allocate(Unit& unit);
  Var pass(const Function& fn, std::span<const Var> inputs, const std::vector<int>& order);
  void enter_micro_batch(std::span<const Var> inputs);
  void check_backward() const;
  void begin_backward();
  void backward_pass(const Var& loss);
  void end_backward(const Tensor& loss);
  void replay(const cuda::Graph& graph, std::span<const Var> inputs, const Tensor& loss,
              const Tensor& state);
  void release();
  void check_whole(const char* where) const;
  std::vector<int> agreed(const std::vector<int>& order);
  void reduce();
  void exchange_scalars(optim::StepValues& values);
  static Tensor part(const Tensor& flat, const Unit& unit);
  void update(const optim::StepValues& values);
  void publish();
  // Whether a step needs losses or the norm in main memory.
  bool waits_for_values() const { return comm_.size() > 1 || wants_norm(); }
  bool wants_norm() const { return options_.grad_norm || options_.clip_norm > 0; }
  Prediction predict() const;
  void barrier();
  Tensor whole(const Unit& unit, const Tensor& flat);
  using Read = std::function<void(std::int64_t first, void* out, std::int64_t count)>;
  void overwrite(Unit& unit, const Segment& segment, const Read& read);
  std::pair<Unit*, const Segment*> find(const std::string& name);

  std::shared_ptr<nn::Module> module_;
  optim::OptimizerPtr optimizer_;
  EngineOptions options_;
  const Plan& plan_;
  Comm& comm_;
  std::vector<optim::Hyper> hypers_;  // of the groups; the last is the default
  std::vector<std::unique_ptr<Unit>> units_;
  std::vector<std::shared_ptr<ShardedSource>> sources_;  // one a unit
  std::unique_ptr<Prefetcher> prefetcher_;
  std::shared_ptr<GradReducer> reducer_;
  std::optional<DryRun> dry_, dry_evaluation_;

  int micro_ = 0;  // micro-batches whose backward is done in this step
  std::int64_t steps_ = 0;
  std::vector<Tensor> losses_;  // of this rank's micro-batches
  StepLoss loss_{0};            // of the last step
  std::shared_ptr<const cuda::Graph> update_graph_;
  std::optional<double> grad_norm_;
  std::shared_ptr<Ledger> account_ =
      std::make_shared<Ledger>();  // the engine's own bytes and traffic
  bool reduced_ = false;           // the accumulated gradients are summed over ranks
  bool broken_ = false;            // a backward or a step was left by an exception
  const int exceptions_ = std::uncaught_exceptions();
  bool stop_wanted_ = false, stop_requested_ = false;
};

std::unique_ptr<Engine> initialize(std::shared_ptr<nn::Module> module,
                                   optim::OptimizerPtr optimizer, EngineOptions options = {});
/// For a module by value: a module is a handle, the engine and the caller have the same one.
template <class M>
requires std::is_base_of_v<nn::Module, M> std::unique_ptr<Engine> initialize(
    const M& module, optim::OptimizerPtr optimizer, EngineOptions options = {}) {
  return initialize(nn::share(module), std::move(optimizer), std::move(options));
}

}  // namespace sg::dist
