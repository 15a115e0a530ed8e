// Finite-difference check of gradients, in double.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "autograd/var.h"

namespace sg {

struct GradcheckOptions {
  double step = 1e-6;       ///< central differences x +- step
  double tolerance = 1e-6;  ///< |analytic - numeric| <= tolerance * max(1, |numeric|)
};

/// Compares backward() with central differences for every element of every input that requires a
/// gradient (f64 all). The output is contracted with fixed pseudo-random weights, so that no
/// element cancels. Throws an Error that names the input, the element and both values at the first
/// that differs.
void gradcheck(const std::function<Var(std::span<const Var>)>& fn, std::vector<Var> inputs,
               const GradcheckOptions& options = {});

}  // namespace sg
