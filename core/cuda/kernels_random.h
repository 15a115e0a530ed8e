// Random numbers on the GPU (random.cu): those of core/rng.h.
#pragma once

#include <cstdint>

#include "core/cuda/launch.h"
#include "core/cuda/map.h"
#include "core/kernels/random.h"
#include "core/scalar.h"
#include "core/step_state.h"

namespace sg::cuda {

/// y = scale x or 0; contiguous samples of n elements, of which element e of sample s draws word
/// e % 4 of philox(mask.key mixed with the step, e / 4, first sample + s).
void dropout(const Launch& on, DType dtype, std::int64_t samples, std::int64_t n,
             const StepState& state, const kernels::DropoutMask& mask, const void* x, void* y);
/// The same over a walk of (y, x, row-major number of the element).
void dropout_strided(const Launch& on, DType dtype, std::int64_t count, std::int64_t n,
                     const StepState& state, const kernels::DropoutMask& mask, const Walk<3>& walk,
                     const void* x, void* y);

}  // namespace sg::cuda
