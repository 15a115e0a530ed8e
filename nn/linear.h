#pragma once

#include "autograd/ops.h"
#include "nn/module.h"

namespace sg::nn {

/// x [..., in] -> x weight^T + bias [..., out]; weight [out, in], bias [out], both U(-1/sqrt(in),
/// 1/sqrt(in)).
class Linear : public Module {
 public:
  Linear(std::int64_t in, std::int64_t out, bool bias = true) {
    SG_CHECK(in >= 0 && out >= 0, "[Linear] sizes must not be negative, got {} -> {}", in, out);
    weight = parameter("weight", {out, in}, uniform(-default_bound(in), default_bound(in)));
    if (bias) this->bias = parameter("bias", {out}, uniform(-default_bound(in), default_bound(in)));
  }
  Var forward(const Var& x) override { return linear(x, weight, bias); }
  /// relu(forward(x)) in one pass.
  Var forward_relu(const Var& x) {
    return named_errors([&] { return linear(x, weight, bias, true); });
  }

  Parameter weight, bias;
};

}  // namespace sg::nn
