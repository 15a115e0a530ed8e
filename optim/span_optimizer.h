// Training without dist: an optimizer together with the states of a list of parameters, each
// updated whole.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"
#include "optim/optimizer.h"
#include "optim/update.h"

namespace sg::optim {

class SpanOptimizer {
 public:
  struct Parameter {
    std::string name;
    Tensor value;  ///< contiguous, f32, f64 or bf16
    Hyper hyper;   ///< its group's: optimizer->defaults(), or optimizer->group({...})
  };

  /// Makes the states, zeros booked as Kind::optimizer on each parameter's device, of its dtype;
  /// f32 for bf16. Throws for f16 or strided values and for names that occur twice.
  SpanOptimizer(OptimizerPtr optimizer, std::vector<Parameter> parameters);

  /// One update from grads[i], the gradient of parameter i: same shape and dtype, or f32 for a
  /// parameter in bf16. An undefined one leaves its parameter and states as they are, as PyTorch
  /// does with None. values.step is ignored: steps are counted here, for each parameter by itself.
  /// A skipped step is not counted.
  void step(std::span<const Tensor> grads, StepValues values = {});
  /// The 2-norm of all gradients / divisor, as one vector. To clip: step(grads, {.clip_scale =
  /// clip_coefficient(norm, max)}).
  double grad_norm(std::span<const Tensor> grads, double divisor = 1) const;

  const Optimizer& optimizer() const { return *optimizer_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  /// The state `state` ("exp_avg") of parameter `parameter`, shaped as the parameter. Throws if
  /// there is none.
  const Tensor& state(std::string_view parameter, std::string_view state) const;
  /// Steps that updated the parameter; settable, to go on from a checkpoint.
  std::int64_t steps(std::string_view parameter) const { return steps_[index_of(parameter)]; }
  void set_steps(std::string_view parameter, std::int64_t steps) {
    steps_[index_of(parameter)] = steps;
  }

 private:
  std::size_t index_of(std::string_view parameter) const;
  void check_gradients(std::span<const Tensor> grads) const;

  OptimizerPtr optimizer_;
  std::vector<Parameter> parameters_;
  std::vector<std::vector<Tensor>> states_;  // [parameter][slot]
  std::vector<Update> updates_;              // one a parameter
  std::vector<std::int64_t> steps_;
};

}  // namespace sg::optim
