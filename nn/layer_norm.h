#pragma once

#include "autograd/ops.h"
#include "nn/module.h"

namespace sg::nn {

struct LayerNormOptions {
  double eps = 1e-5;
  bool elementwise_affine = true;
  bool bias = true;
};

/// Normalises over the last dimensions, whose sizes are `normalized` (Ba et al., 2016); weight
/// ones, bias zeros.
class LayerNorm : public Module {
 public:
  explicit LayerNorm(const Shape& normalized, const LayerNormOptions& options = {})
      : normalized(normalized), eps(options.eps) {
    SG_CHECK(!normalized.empty(), "[LayerNorm] needs at least one dimension");
    if (options.elementwise_affine) weight = parameter("weight", normalized, ones);
    if (options.elementwise_affine && options.bias) bias = parameter("bias", normalized, zeros);
  }
  explicit LayerNorm(std::int64_t size, const LayerNormOptions& options = {})
      : LayerNorm(Shape{size}, options) {}
  Var forward(const Var& x) override { return layer_norm(x, normalized, weight, bias, eps); }

  Parameter weight, bias;
  const Shape normalized;
  const double eps;
};

}  // namespace sg::nn
