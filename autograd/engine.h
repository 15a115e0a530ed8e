// The iterative reverse-mode engine.
#pragma once

#include "autograd/var.h"

namespace sg {

/// Propagates `seed` (1 for a single element if undefined) from `root` to every leaf that requires
/// a gradient. Nodes run in descending order of creation, so sums over several uses of a value have
/// one order. A leaf's gradient is final, and handed to its sink, when the last node that uses it
/// has run. Saved values are dropped as nodes finish; a second run over any of the nodes throws.
void run_backward(const Var& root, const Tensor& seed);

}  // namespace sg
