// Adam (Kingma and Ba, arXiv:1412.6980) and AdamW (Loshchilov and Hutter, arXiv:1711.05101):
// torch.optim's forms.
#pragma once

#include "optim/optimizer.h"

namespace sg::optim {

/// lr, eps and weight_decay >= 0; betas in [0, 1).
struct AdamOptions {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
};

/// As AdamOptions; torch.optim.AdamW's default decay.
struct AdamWOptions {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 1e-2;
};

/// g += weight_decay p;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
/// p -= lr m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + eps).
/// States: "exp_avg" (m) and "exp_avg_sq" (v).
OptimizerPtr adam(const AdamOptions& options = {});

/// Adam with decay apart from the gradient: p *= 1 - lr weight_decay comes first, and g stays as it
/// is.
OptimizerPtr adamw(const AdamWOptions& options = {});

}  // namespace sg::optim
