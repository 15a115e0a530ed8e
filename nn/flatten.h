#pragma once

#include "autograd/ops.h"
#include "nn/module.h"

namespace sg::nn {

/// Dimensions first to last become one, in row-major order whatever the memory layout: [N, C, H, W]
/// -> [N, C H W].
class Flatten : public Module {
 public:
  explicit Flatten(std::int64_t first = 1, std::int64_t last = -1) : first(first), last(last) {}
  Var forward(const Var& x) override { return flatten(x, first, last); }

  const std::int64_t first, last;
};

}  // namespace sg::nn
