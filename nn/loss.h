// Losses: functions, and the same as objects that hold their options.
#pragma once

#include "autograd/ops.h"

namespace sg::nn {

using sg::cross_entropy;
using sg::CrossEntropyOptions;
using sg::mse_loss;
using sg::Reduction;

/// Softmax and negative log-likelihood in one: logits [N, C, ...], targets i64 [N, ...] or class
/// probabilities of logits' shape. Errors are cross_entropy's (autograd/ops.h).
struct CrossEntropyLoss {
  CrossEntropyLoss() = default;
  explicit CrossEntropyLoss(const CrossEntropyOptions& options) : options(options) {}
  Var operator()(const Var& logits, const Tensor& targets) const {
    return cross_entropy(logits, targets, options);
  }
  CrossEntropyOptions options;
};

/// Squares of the differences of two values of one shape; other shapes are an error.
struct MSELoss {
  explicit MSELoss(Reduction reduction = Reduction::mean) : reduction(reduction) {}
  Var operator()(const Var& x, const Var& target) const { return mse_loss(x, target, reduction); }
  Reduction reduction;
};

}  // namespace sg::nn
