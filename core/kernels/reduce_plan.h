// Which elements of a tensor a reduction folds into which element of its result: no tensors, no
// formatting, so that the GPU's kernels can use it.
#pragma once

#include <cstdint>

#include "core/kernels/host_device.h"

namespace sg::kernels {

/// A list of dimensions, outermost first, with the strides of the source and of the result.
struct ReduceDims {
  static constexpr int kCapacity = 8;
  int count = 0;
  std::int64_t size[kCapacity] = {}, from[kCapacity] = {}, to[kCapacity] = {};

  std::int64_t total() const {
    std::int64_t n = 1;
    for (int d = 0; d < count; ++d) n *= size[d];
    return n;
  }
  /// A further dimension inside the others; merged with the last one if their strides compose.
  void append(std::int64_t n, std::int64_t f, std::int64_t t) {
    if (count > 0 && from[count - 1] == f * n && to[count - 1] == t * n) {
      size[count - 1] *= n;
      from[count - 1] = f;
      to[count - 1] = t;
      return;
    }
    size[count] = n;
    from[count] = f;
    to[count++] = t;
  }
  SG_HD void locate(std::int64_t index, std::int64_t& f, std::int64_t& t) const {
    f = t = 0;
    for (int d = count - 1; d >= 0; --d) {
      f += index % size[d] * from[d];
      t += index % size[d] * to[d];
      index /= size[d];
    }
  }
};

/// Both in memory order, by descending stride of the source.
struct ReducePlan {
  ReduceDims kept, reduced;
  bool inner_reduced = false;  ///< the dimension of the smallest stride is the last one of
                               ///< `reduced`, else of `kept`
};

}  // namespace sg::kernels
