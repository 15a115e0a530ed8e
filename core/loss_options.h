// What the losses of core/ops.h, autograd/ops.h and nn/loss.h are asked for.
#pragma once

#include <cstdint>

namespace sg {

/// Of the losses of the single targets: as they are, their sum, or their mean.
enum class Reduction { none, sum, mean };

struct CrossEntropyOptions {
  Reduction reduction = Reduction::mean;  ///< the mean is over the targets that count
  std::int64_t ignore_index = -100;       ///< targets equal to it do not count
  double label_smoothing = 0;             ///< in [0, 1]: this share goes to all classes alike
};

}  // namespace sg
