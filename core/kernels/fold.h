// The sum behind reduce-scatter: several spans added element by element, strictly in the order
// given.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/kernels/isa.h"

namespace sg::kernels {

template <class T>
struct FoldLoops {
  /// out[i] = ((sources[0][i] + sources[1][i]) + sources[2][i]) + ..., of n elements and count >= 1
  /// sources; one thread. `out` may be the same memory as a source, or as several, but must not
  /// overlap one in part. Up to eight sources are read in one pass, more of them tile by tile.
  void (*sum)(T* out, const T* const* sources, std::int64_t count, std::int64_t n);
};

struct FoldKernels {
  FoldLoops<float> f32;
  FoldLoops<double> f64;

  template <class T>
  const FoldLoops<T>& of() const {
    if constexpr (std::is_same_v<T, float>)
      return f32;
    else
      return f64;
  }
};

SG_ISA_TABLE(FoldKernels, fold_kernels)

}  // namespace sg::kernels
