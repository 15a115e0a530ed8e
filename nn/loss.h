// Losses: functions, and the same as objects that hold their options.
#pragma once

#include "autograd/ops.h"

namespace sg::nn {

using sg::cross_entropy;
using sg::mse_loss;
using sg::Reduction;

struct CrossEntropyOptions {
  Reduction reduction = Reduction::mean;
  std::int64_t ignore_index = -100;
  double label_smoothing = 0;
};

/// logits [N, C, ...], targets i64 [N, ...] or class probabilities of logits' shape.
struct CrossEntropyLoss {
  CrossEntropyLoss() = default;
  explicit CrossEntropyLoss(const CrossEntropyOptions& options) : options(options) {}
  Var operator()(const Var& logits, const Tensor& targets) const {
    return cross_entropy(logits, targets, options.reduction, options.ignore_index,
                         options.label_smoothing);
  }
  CrossEntropyOptions options;
};

struct MSELoss {
  explicit MSELoss(Reduction reduction = Reduction::mean) : reduction(reduction) {}
  Var operator()(const Var& x, const Var& target) const { return mse_loss(x, target, reduction); }
  Reduction reduction;
};

}  // namespace sg::nn
