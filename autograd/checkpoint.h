// Activation checkpointing (Chen et al., "Training deep nets with sublinear memory cost", 2016,
// section 4): memory for time. It is the third recipe behind Saved, not a second graph.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "autograd/var.h"
#include "core/rank.h"

namespace sg {

/// Runs fn(inputs) so that what its ops would save for backward is dropped now and computed again,
/// once, when the first of those nodes runs. Everything that fn reads and that changes must come
/// through `inputs` or be a parameter. The same random numbers are drawn again; running buffers are
/// not updated twice (see recomputing()).
Var checkpoint(const std::function<Var(std::span<const Var>)>& fn, std::vector<Var> inputs);
/// The usual case of one input.
Var checkpoint(const std::function<Var(const Var&)>& fn, const Var& input);

/// True while a segment is computed for the second time: an op must not update running buffers
/// then.
bool recomputing();

}  // namespace sg
