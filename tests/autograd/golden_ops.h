// How a golden case is computed here.
#pragma once

#include <set>
#include <span>
#include <string>

#include "autograd/var.h"
#include "tests/support/golden.h"

namespace sg::test {

/// The op of `c` applied to inputs of any floating dtype and device. An op that is not known is an
/// error.
Var run_case(const GoldenCase& c, std::span<const Var> x);

/// The functions that a header declares at the beginning of a line, by the names of their golden
/// cases: an overload (const Var&, double) is name_scalar. Operators are left out.
std::set<std::string> public_functions(const std::string& header);
/// The floating dtype of that name ("bf16").
DType dtype_named(const std::string& name);

}  // namespace sg::test
