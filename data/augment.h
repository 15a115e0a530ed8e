// Random flip and crop of images, as bytes.
#pragma once

#include <cstdint>
#include <span>

#include "data/dataset.h"

namespace sg::data {

/// Off unless asked for. `standard` is what He et al. (2015, section 4.2) train CIFAR-10 with.
struct Augment {
  bool flip = false;  ///< mirror left and right, one time in two
  int crop = 0;  ///< pad with this many black pixels on each side, then cut the old size out at a
                 ///< random place

  static constexpr Augment standard() { return {.flip = true, .crop = 4}; }
  bool any() const { return flip || crop > 0; }
};

/// Writes the augmented image of `sample` in `epoch` to `out`. A function of (seed, epoch, sample)
/// alone: the same whichever rank asks, in whichever order.
void augment(const Augment& options, const Dataset& set, std::int64_t sample, std::int64_t epoch,
             std::uint64_t seed, std::span<std::uint8_t> out);

}  // namespace sg::data
