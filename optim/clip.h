// Clipping by the global norm of all gradients, equal to the last bit however they are spread over
// ranks.
#pragma once

#include <span>

#include "core/exact_sum.h"
#include "core/tensor.h"

namespace sg::optim {

/// Adds the squares of the mean gradients (grads[i] / divisor, rounded as the update rounds it) to
/// `sum`: per block of 64 in double in a fixed order, the blocks exactly. A span starts at a block
/// of its unit (a multiple of 64 elements) and ends at one or at the unit's end; then any split
/// over spans, threads and ranks gives the same bits. The norm is sqrt(sum.value()). Squares of f64
/// gradients beyond 1e154 count as infinite, those below 1e-162 as zero.
void add_squares(std::span<const float> grads, double divisor, ExactSum& sum);
void add_squares(std::span<const double> grads, double divisor, ExactSum& sum);
/// The same for a flat tensor, f32 or f64. Waits for a GPU's.
void add_squares(const Tensor& grads, double divisor, ExactSum& sum);

/// What gradients are multiplied by so that their norm is at most max_norm:
/// torch.nn.utils.clip_grad_norm_'s min(max_norm / (total_norm + 1e-6), 1). NaN where the norm is
/// NaN, 0 where it is infinite; max_norm < 0 throws.
double clip_coefficient(double total_norm, double max_norm);

}  // namespace sg::optim
