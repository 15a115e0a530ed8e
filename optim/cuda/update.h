// The optimizers' loops on a GPU: as UpdateLoops (optim/kernels/update.h), queued on the compute
// stream of the current rank. One pass over memory, whole spans in one launch.
#pragma once

#include <cstdint>

#include "core/device.h"
#include "core/scalar.h"
#include "optim/kernels/update.h"

namespace sg::optim::cuda {

/// 64 elements of a flat span: which coefficients they take, and how many of them there are.
struct Block {
  static constexpr int kElements = 64;
  static constexpr std::uint8_t kNobody = 255;  ///< its elements stay as they are
  std::uint8_t group = kNobody;
  std::uint8_t count = 0;
};

/// A flat span and what updates it, all on the GPU.
struct Span {
  static constexpr int kStates = 2;
  DType param_dtype, dtype;  ///< of the parameters (f32, f64 or bf16); of all else (f32 or f64)
  void* param;
  const void* grad;
  void* states[kStates];  ///< in the order of state_names(), null where there are fewer
  std::int64_t n;
  const Block* blocks;       ///< ceil(n / 64)
  const void* coefficients;  ///< Optimizer::coefficients() of every group
};

/// Updates the whole span in one launch; nothing, if a kernel before it found something wrong (an
/// index outside an embedding): what it would be given is no gradient. It reads what changes from
/// step to step from memory, so that it can be captured. `name` is for error texts.
void update(kernels::Rule rule, const char* name, Device device, const Span& span);

/// T is float or double.
template <class T>
void block_squares(const char* name, Device device, const T* grad, std::int64_t n,
                   const kernels::GradientScale<T>& scale, double* sums);

}  // namespace sg::optim::cuda
