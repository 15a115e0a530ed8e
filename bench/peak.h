// The machine's peak: independent fused multiply-adds of its widest registers, on some threads.
#pragma once

#include <benchmark/benchmark.h>

#include "bench/measure.h"
#include "core/parallel.h"

#if SG_ISA_X86
#include <immintrin.h>
#endif

namespace sg::bench {

// Twelve sums hide the latency of two units of four cycles; each is a register.
inline constexpr int kSums = 12;
inline constexpr std::int64_t kRounds = 1 << 17;

/// Runs `rounds` x kSums vector operations; gives the operations (two a lane) of one round.
using Peak = double (*)(std::int64_t rounds);

#if SG_ISA_X86
// A macro, as the intrinsics can only be inlined into a function of their own target.
#define SG_PEAK(name, isa, V, splat, fma, lanes)                                                   \
  [[gnu::target(isa)]] inline double name(std::int64_t rounds) {                                   \
    const V factor = splat(0.5f), term = splat(1.0f);                                              \
    V sum[kSums];                                                                                  \
    for (int s = 0; s < kSums; ++s) sum[s] = splat(0.1f * static_cast<float>(s));                  \
    for (std::int64_t r = 0; r < rounds; ++r) {                                                    \
      _Pragma("GCC unroll 12") for (int s = 0; s < kSums; ++s) sum[s] = fma(sum[s], factor, term); \
    }                                                                                              \
    for (int s = 0; s < kSums; ++s) benchmark::DoNotOptimize(sum[s]);                              \
    return 2.0 * (lanes)*kSums;                                                                    \
  }
SG_PEAK(peak_avx512_f32, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps, 16)
SG_PEAK(peak_avx512_f64, "avx512f", __m512d, _mm512_set1_pd, _mm512_fmadd_pd, 8)
SG_PEAK(peak_avx2_f32, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps, 8)
SG_PEAK(peak_avx2_f64, "avx2,fma", __m256d, _mm256_set1_pd, _mm256_fmadd_pd, 4)
#undef SG_PEAK
#endif

/// Without fused multiply-adds: a multiplication and an addition, of 16 bytes.
template <class T>
double peak_plain(std::int64_t rounds) {
  using V [[gnu::vector_size(16)]] = T;
  V sum[kSums] = {};
  for (std::int64_t r = 0; r < rounds; ++r)
    for (int s = 0; s < kSums; ++s) sum[s] = sum[s] * T(0.5) + T(1);
  for (int s = 0; s < kSums; ++s) benchmark::DoNotOptimize(sum[s]);
  return 2.0 * (16.0 / sizeof(T)) * kSums;
}

template <class T>
Peak peak() {
#if SG_ISA_X86
  constexpr bool single = sizeof(T) == 4;
  if (__builtin_cpu_supports("avx512f")) return single ? peak_avx512_f32 : peak_avx512_f64;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return single ? peak_avx2_f32 : peak_avx2_f64;
#endif
  return peak_plain<T>;
}

/// Seconds that `operations` take at the peak of `threads` threads.
template <class T>
double seconds_at_peak(double operations, int threads) {
  double a_round = 0;
  const double time = seconds([&] {
    parallel_for(threads, 1, [&](std::int64_t begin, std::int64_t) {
      const double counted = peak<T>()(kRounds);
      if (begin == 0) a_round = counted;
    });
  });
  return time * operations / (a_round * static_cast<double>(kRounds * threads));
}

}  // namespace sg::bench
