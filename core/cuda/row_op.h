// Names of row ops, as the CPU's side hands them to the GPU's.
#pragma once

#include <cstdint>

namespace sg::cuda {

enum class RowOp : std::uint8_t { softmax, softmax_grad, log_softmax, log_softmax_grad };

}  // namespace sg::cuda
