// Random permutations that are a function of a key alone.
#pragma once

#include <cstdint>
#include <span>
#include <utility>

#include "core/rng.h"

namespace sg::data {

/// Shuffles `values` with the numbers of Philox's stream `key` (Fisher and Yates, from the back).
/// Position i takes floor(u (i + 1) / 2^64) for a 64-bit u: the bias of 2^-64 (i + 1) cannot be
/// seen.
template <class T>
void shuffle(std::span<T> values, std::uint64_t key) {
  for (std::size_t i = values.size(); i-- > 1;) {
    const auto words = philox(key, i, 0);
    const std::uint64_t u = (std::uint64_t{words[0]} << 32) | words[1], n = i + 1;
    // The high 64 bits of u * n, for n < 2^32, without a 128-bit type.
    const std::uint64_t j = ((u >> 32) * n + (((u & 0xffffffffu) * n) >> 32)) >> 32;
    std::swap(values[i], values[j]);
  }
}

}  // namespace sg::data
