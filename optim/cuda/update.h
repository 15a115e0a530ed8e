// The optimizers' loops on a GPU: as UpdateLoops (optim/kernels/update.h), queued on the compute
// stream of the current rank. One pass over memory, whole spans in one launch.
#pragma once

#include <cstdint>

#include "core/device.h"
#include "optim/kernels/update.h"

namespace sg::optim::cuda {

/// T is float or double; `name` is for error texts.
template <class T>
void sgd(const char* name, Device device, T* param, const T* grad, T* buffer, std::int64_t n,
         const kernels::SgdCoefficients<T>& c);
template <class T>
void adam(const char* name, Device device, T* param, const T* grad, T* m, T* v, std::int64_t n,
          const kernels::AdamCoefficients<T>& c);
template <class T>
void block_squares(const char* name, Device device, const T* grad, std::int64_t n,
                   const kernels::GradientScale<T>& scale, double* sums);

}  // namespace sg::optim::cuda
