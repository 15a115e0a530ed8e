// Names of elementwise ops, as the CPU's side hands them to the GPU's.
#pragma once

#include <cstdint>

namespace sg::cuda {

enum class Family : std::uint8_t { unary, unary_grad, binary, grad_a, grad_b, compare, where };

/// An op of core/kernels/elementwise_list.h: its family, place in the family's list and parameters.
struct Elementwise {
  Family family;
  int op = 0;
  double a = 0, b = 0;
};

}  // namespace sg::cuda
