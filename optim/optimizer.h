// An optimizer is one function over flat spans: it knows how values change, not where its state
// lives, which part of a parameter the caller owns, or how many ranks there are. Sharding, offload
// and checkpoints need no more than this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "optim/kernels/update.h"

namespace sg::optim {

/// Hyperparameters of one parameter group. An optimizer reads those that it names in hyper_names().
/// Doubles, so that training in f64 sees 1e-3 and not the float nearest to it.
struct Hyper {
  double lr = 1e-3;
  double momentum = 0;
  double dampening = 0;
  double weight_decay = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  bool nesterov = false;
  bool operator==(const Hyper&) const = default;
};

/// What a parameter group has of its own; everything else is the optimizer's default.
struct GroupOptions {
  std::optional<double> lr = {}, momentum = {}, dampening = {}, weight_decay = {};
  std::optional<double> beta1 = {}, beta2 = {}, eps = {};
  std::optional<bool> nesterov = {};
};

/// What changes from step to step. A step whose gradients overflowed is skipped as a value, not by
/// another path.
struct StepValues {
  std::int64_t step = 1;    ///< counts from 1, as the papers do
  double grad_divisor = 1;  ///< gradients are sums over so many slices: one division after the sum
  double clip_scale = 1;    ///< then they are multiplied by this (clip_coefficient, optim/clip.h)
  double lr_factor = 1;     ///< times the group's lr (Schedule, optim/schedule.h)
  bool skip = false;        ///< parameters and states stay as they are
};

/// One element type's worth of states: state[i] is state_names()[i] of the same elements as the
/// parameter span.
template <class T>
using States = std::span<const std::span<T>>;

/// Has no state of its own and is shared by all ranks: it keeps the default hyperparameters, all
/// else is an argument.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  const char* name() const { return name_; }
  /// PyTorch's names of the states kept for each element ("exp_avg", "exp_avg_sq"); they start as
  /// zeros.
  const std::vector<std::string>& state_names() const { return state_names_; }
  int state_slots() const { return static_cast<int>(state_names_.size()); }
  /// The members of Hyper that it reads.
  const std::vector<std::string>& hyper_names() const { return hyper_names_; }
  const Hyper& defaults() const { return defaults_; }
  /// The defaults with a group's own values. Throws for values out of range and for options the
  /// optimizer has not.
  Hyper group(const GroupOptions& options) const;

  /// Updates `param` and `state` in place, from summed gradients, with the current rank's threads.
  /// All spans are of the same length, and may be any part of a parameter: bits depend neither on
  /// the cut nor on the threads. (Of tensors, on a GPU too: Update, optim/update.h.)
  void update(std::span<float> param, std::span<const float> grad, States<float> state,
              const Hyper& hyper, const StepValues& values) const;
  void update(std::span<double> param, std::span<const double> grad, States<double> state,
              const Hyper& hyper, const StepValues& values) const;
  /// Parameters in bf16: computed in f32, the new parameter rounded once, to nearest even. No f32
  /// copy is kept, so a change below half a unit in a parameter's last place is lost.
  void update(std::span<bf16> param, std::span<const float> grad, States<float> state,
              const Hyper& hyper, const StepValues& values) const;

  /// What a GPU needs of it: which of its kernels, and their coefficients.
  virtual kernels::Rule rule() const { return kernels::Rule::none; }
  /// Appends the coefficients of one group and step, in the element type `dtype` (f32 or f64).
  virtual void coefficients(DType dtype, const Hyper& hyper, const StepValues& values,
                            std::vector<std::byte>& to) const;

 protected:
  /// `name` is a string literal.
  Optimizer(const char* name, std::vector<std::string> hyper_names,
            std::vector<std::string> state_names, const Hyper& defaults);
  /// Throws if a value is out of range: "[adam] lr must be >= 0, got -1".
  virtual void check(const Hyper& hyper) const = 0;
  /// update() after its checks; the spans are not empty and the step is not skipped.
  virtual void run(std::span<float> param, std::span<const float> grad, States<float> state,
                   const Hyper& hyper, const StepValues& values) const = 0;
  virtual void run(std::span<double> param, std::span<const double> grad, States<double> state,
                   const Hyper& hyper, const StepValues& values) const = 0;

 private:
  void run_in_tiles(std::span<bf16> param, std::span<const float> grad, States<float> state,
                    const Hyper& hyper, const StepValues& values) const;

  const char* name_;
  std::vector<std::string> hyper_names_, state_names_;
  Hyper defaults_;
};

using OptimizerPtr = std::shared_ptr<const Optimizer>;

}  // namespace sg::optim
