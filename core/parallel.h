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
/// so results are too, however many threads OpenMP grants: it may give fewer than asked for
/// (OMP_THREAD_LIMIT, OMP_DYNAMIC, a call from within a parallel region), and these run all parts.
template <class F>
void parallel_for(std::int64_t n, std::int64_t grain, F&& f) {
  if (n <= 0) return;
#if SG_OPENMP
  const std::int64_t most = grain > 0 ? std::max<std::int64_t>(n / grain, 1) : n;
  const int threads = static_cast<int>(std::min<std::int64_t>(current_rank().threads, most));
  if (threads > 1) {
#pragma omp parallel num_threads(threads)
    {
      const int team = omp_get_num_threads();
      for (int t = omp_get_thread_num(); t < threads; t += team) {
        const std::int64_t begin = n * t / threads, end = n * (t + 1) / threads;
        if (begin < end) f(begin, end);
      }
    }
    return;
  }
#else
  static_cast<void>(grain);
#endif
  f(std::int64_t{0}, n);
}

#if SG_OPENMP
/// Sets OpenMP's default number of threads, which oneDNN goes by, to what it will be granted here:
/// the current rank's, at most OMP_THREAD_LIMIT, and 1 within a parallel region. oneDNN's
/// convolutions divide their work by it and would leave out parts in a smaller team.
inline int set_library_threads() {
  const int threads =
      omp_in_parallel() ? 1 : std::clamp(current_rank().threads, 1, omp_get_thread_limit());
  if (omp_get_max_threads() != threads) omp_set_num_threads(threads);
  return threads;
}
#else
inline int set_library_threads() { return current_rank().threads; }
#endif

}  // namespace sg
