// An exact sum (core/exact_sum.h) of doubles on a GPU.
#pragma once

#include <cstdint>

#include "core/device.h"

namespace sg::optim::cuda {

/// Words of the device that `sum_exactly` works in.
std::int64_t exact_sum_words();
/// Adds up `n` doubles, up to 2^30, on the compute stream of the current rank: the first
/// ExactPieces::kWords of `words` are the sum's then. `name` is for error texts.
void sum_exactly(const char* name, Device device, const double* terms, std::int64_t n,
                 std::int64_t* words);

}  // namespace sg::optim::cuda
