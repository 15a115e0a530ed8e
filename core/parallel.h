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
/// In a build without OpenMP one thread does.
template <class F>
void parallel_for(std::int64_t n, std::int64_t grain, F&& f) {
  if (n <= 0) return;
  const std::int64_t most = grain > 0 ? std::max<std::int64_t>(n / grain, 1) : n;
  const int threads = static_cast<int>(std::min<std::int64_t>(current_rank().threads, most));
  const auto part = [&](int t) {
    const std::int64_t begin = n * t / threads, end = n * (t + 1) / threads;
    if (begin < end) f(begin, end);
  };
#if SG_OPENMP
  if (threads > 1) {
#pragma omp parallel num_threads(threads)
    {
      const int team = omp_get_num_threads();
      for (int t = omp_get_thread_num(); t < threads; t += team) part(t);
    }
    return;
  }
#endif
  for (int t = 0; t < threads; ++t) part(t);
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
