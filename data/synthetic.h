// A built-in data set of CIFAR-10's format, so that everything runs without a download.
//
// A class is a texture: stripes of four directions in two widths, checkers, rings. Phase, position,
// colours, contrast (its sign included), exact direction and width are drawn for each image, and
// noise covers it. So the mean image is the same grey for every class and a linear classifier
// learns next to nothing, while a small convolutional net, which can find an edge anywhere, learns
// it in two epochs. Only integer arithmetic: the bytes are the same on every machine.
#pragma once

#include <cstdint>

#include "data/dataset.h"

namespace sg::data {

struct SyntheticOptions {
  std::int64_t train = 10'000;
  std::int64_t test = 2'000;
  std::uint64_t seed = 0;
};

/// Image i of a split is a function of (seed, split, i) alone, whatever the sizes, and every ten
/// images from a multiple of ten on have each class once. Uses the compute threads of the current
/// rank.
Splits synthetic(const SyntheticOptions& options = {});

}  // namespace sg::data
