// Copies and fills of strided tensors, with a cast where dtypes differ. Both sides on the CPU,
// shapes equal.
#pragma once

#include "core/tensor.h"

namespace sg::kernels {

void copy(const Tensor& source, const Tensor& destination);
void fill(const Tensor& destination, double value);

}  // namespace sg::kernels
