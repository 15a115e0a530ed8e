// What changes from step to step and that kernels read.
#pragma once

#include <cstdint>

namespace sg {

struct StepState {
  std::int64_t step = 0;  ///< optimizer steps finished; keys the random numbers of a forward
  std::int64_t first_sample =
      0;  ///< position in the global batch of the first sample of this micro-batch
  /// Where kernels of a captured graph find these values when it is replayed; null: they are given
  /// them as they are.
  const StepState* replayed = nullptr;
};

}  // namespace sg
