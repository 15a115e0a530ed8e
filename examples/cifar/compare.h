// `--plan all`: every plan from the same seed, side by side.
#pragma once

#include <string>
#include <vector>

#include "examples/cifar/train.h"

namespace sg::cifar {

struct Comparison {
  std::string text;   ///< the table, and a line for each thing that differs
  bool equal = true;  ///< every bit and every byte is as it must be
};

/// Holds the losses and the final weights of all results against the first of their family, and
/// bytes and traffic against their predictions. Micro-batches summed first (ddp, zero1) and ranks
/// summed first (zero2, zero3) are two families, because floating-point addition is not
/// associative; with one rank, or one micro-batch a step, they are one.
Comparison compare(const std::vector<Result>& results);

}  // namespace sg::cifar
