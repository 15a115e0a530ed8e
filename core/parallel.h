// The one way to use several cores inside an op.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/rank.h"
#if SG_OPENMP
#include <omp.h>
#endif

namespace sg {

/// Calls f(begin, end) on contiguous parts of [0, n), at most one a compute thread of the current
/// rank and none smaller than `grain`. Parts are a function of n, grain and the thread count alone,
/// so results are too.
template <class F>
void parallel_for(std::int64_t n, std::int64_t grain, F&& f) {
  if (n <= 0) return;
#if SG_OPENMP
  const std::int64_t most = grain > 0 ? std::max<std::int64_t>(n / grain, 1) : n;
  const int threads = static_cast<int>(std::min<std::int64_t>(current_rank().threads, most));
  if (threads > 1) {
#pragma omp parallel num_threads(threads)
    {
      const int t = omp_get_thread_num();
      const std::int64_t begin = n * t / threads, end = n * (t + 1) / threads;
      if (begin < end) f(begin, end);
    }
    return;
  }
#else
  static_cast<void>(grain);
#endif
  f(std::int64_t{0}, n);
}

}  // namespace sg
