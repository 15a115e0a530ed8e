// Philox4x32-10 for kBatch counters side by side (core/rng.h has it for one).
#include "core/kernels/random.h"

#include "core/kernels/host_device.h"

namespace sg::kernels::SG_ISA {
namespace {

constexpr int kBatch = 32;

// word[w][j] = word w of counter first + j, for j < count.
SG_HD void philox_batch(std::uint64_t key, std::uint64_t first, std::uint64_t high, int count,
                        std::uint32_t (&word)[4][kBatch]) {
#pragma omp simd
  for (int j = 0; j < count; ++j) {
    const std::uint64_t low = first + static_cast<std::uint64_t>(j);
    std::uint32_t c0 = static_cast<std::uint32_t>(low), c1 = static_cast<std::uint32_t>(low >> 32);
    std::uint32_t c2 = static_cast<std::uint32_t>(high),
                  c3 = static_cast<std::uint32_t>(high >> 32);
    std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0;
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c2;
      c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
      c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c1 = static_cast<std::uint32_t>(p1);
      c3 = static_cast<std::uint32_t>(p0);
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    word[0][j] = c0;
    word[1][j] = c1;
    word[2][j] = c2;
    word[3][j] = c3;
  }
}

template <class T>
void dropout(const T* x, T* y, std::int64_t n, std::int64_t start, std::uint64_t sample,
             const DropoutMask& mask) {
  const T scale = static_cast<T>(mask.scale);
  const std::uint32_t threshold = mask.threshold;
  for (std::int64_t i = 0; i < n; i += 4 * kBatch) {
    std::uint32_t word[4][kBatch], flat[4 * kBatch];
    const std::int64_t count = n - i < 4 * kBatch ? n - i : 4 * kBatch;
    const int counters = static_cast<int>((count + 3) / 4);
    philox_batch(mask.key, static_cast<std::uint64_t>((start + i) / 4), sample, counters, word);
    for (int j = 0; j < counters; ++j)
      for (int w = 0; w < 4; ++w) flat[4 * j + w] = word[w][j];
#pragma omp simd
    for (std::int64_t j = 0; j < count; ++j)
      y[i + j] = flat[j] < threshold ? T(0) : x[i + j] * scale;
  }
}

}  // namespace

const RandomKernels& random_kernels_table() {
  static constexpr RandomKernels table{dropout<float>, dropout<double>};
  return table;
}

}  // namespace sg::kernels::SG_ISA
