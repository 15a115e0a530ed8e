// An optimizer's step over a flat span of tensors, wherever they are: prepared once, run every
// step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/tensor.h"
#include "optim/optimizer.h"

namespace sg::optim {

/// What parameters of `param` are updated in, which is the dtype of their states: f32 for bf16.
inline DType state_dtype(DType param) { return param == DType::bf16 ? DType::f32 : param; }

/// A run of elements that take one group's hyperparameters.
struct Section {
  std::int64_t begin = 0, length = 0;
  Hyper hyper;
};

class Update {
 public:
  /// `param` (f32, f64 or bf16) and `states` (in the order of state_names(), of its dtype, f32 for
  /// bf16) are flat and contiguous, of one length; they are updated in place. Sections ascend;
  /// elements in none stay as they are. On a GPU a section begins at a multiple of 64 elements, and
  /// the whole span is one launch. Errors: sizes and dtypes that do not fit, and optimizers that
  /// have no kernel for a GPU.
  Update(OptimizerPtr optimizer, Tensor param, std::vector<Tensor> states,
         std::vector<Section> sections);

  /// The values of the runs from here on, at first those of StepValues itself. A GPU's go to its
  /// memory, in the order of its compute stream: one launch for all of `updates` (or for 2 KB of
  /// coefficients, some 30 units), which are on one device. Runs that were captured read what is
  /// set for the same updates together.
  static void set(std::span<Update* const> updates, const StepValues& values);
  void set(const StepValues& values) {
    Update* const self = this;
    set({&self, 1}, values);
  }
  /// One update from summed gradients, as many as parameters and of the states' dtype. On a GPU
  /// it changes nothing if a kernel before it has found an error, which the next wait throws.
  void run(const Tensor& grad) const;

 private:
  void make_tables();
  void check(const StepValues& values) const;

  OptimizerPtr optimizer_;
  Tensor param_;
  std::vector<Tensor> states_;
  std::vector<Section> sections_;
  StepValues values_;
  // On a GPU: cuda::Block of every 64 elements, and the coefficients of every group.
  std::vector<Hyper> groups_;
  Tensor blocks_, coefficients_;
};

}  // namespace sg::optim
