// What matmul.cu offers to the rest of core/cuda.
#pragma once

#include <cstdint>

#include "core/cuda/launch.h"
#include "core/scalar.h"

namespace sg::cuda {

/// x = x + bias, then relu if asked, in place; `x` is rows x columns, rows `ld` apart. `bias`
/// [columns] may be null. 16-bit values are rounded once.
void bias_relu(const Launch& on, DType dtype, std::int64_t rows, std::int64_t columns,
               std::int64_t ld, void* x, const void* bias, bool relu);

}  // namespace sg::cuda
