// Stochastic gradient descent with momentum: torch.optim.SGD.
#pragma once

#include "optim/optimizer.h"

namespace sg::optim {

/// Each >= 0; nesterov needs a momentum and no dampening.
struct SgdOptions {
  double lr = 1e-3;
  double momentum = 0;
  double dampening = 0;
  double weight_decay = 0;
  bool nesterov = false;
};

/// g += weight_decay p;  b = momentum b + (1 - dampening) g (b = g in step 1);  p -= lr b, or lr (g
/// + momentum b) with nesterov. One state, "momentum_buffer", or none where momentum is 0; a group
/// may then not ask for one.
OptimizerPtr sgd(const SgdOptions& options = {});

}  // namespace sg::optim
