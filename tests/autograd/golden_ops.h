// How a golden case is computed here.
#pragma once

#include <span>

#include "autograd/var.h"
#include "tests/support/golden.h"

namespace sg::test {

/// The op of `c` applied to inputs of any floating dtype and device. An op that is not known is an
/// error.
Var run_case(const GoldenCase& c, std::span<const Var> x);

}  // namespace sg::test
