// Reductions on the GPU (reduce.cu).
#pragma once

#include <cstdint>

#include "core/cuda/launch.h"
#include "core/kernels/reduce.h"
#include "core/kernels/reduce_plan.h"
#include "core/scalar.h"

namespace sg::cuda {

/// out[t] = fold of x over plan.reduced / divisor, for every t of plan.kept. Floats are added a few
/// at a time in their compute type, these sums in double; integers in i64. The order depends on the
/// plan's sizes alone.
struct Reduction {
  kernels::ReducePlan plan;
  kernels::Fold fold;
  DType from;
  const void* x;
  /// Not null: squares of the differences from centre[t] are added (fold sum, floats).
  const double* centre;
  DType to;  ///< floating for floats; for integers i64 or `from`
  void* out;
  double divisor;  ///< of floats
};

/// Numbers of 8 bytes that reduce() keeps the results of pieces in.
std::int64_t reduce_scratch(const Reduction& r);
void reduce(const Launch& on, const Reduction& r, void* scratch);

/// out[t] = place of the first maximum (NaN wins) of n values `stride` apart, from each place of
/// `kept`.
void argmax(const Launch& on, DType dtype, const kernels::ReduceDims& kept, std::int64_t n,
            std::int64_t stride, const void* x, std::int64_t* out);

}  // namespace sg::cuda
