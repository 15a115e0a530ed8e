#include "core/rank.h"

#include "core/thread_rank.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif
#if SG_OPENMP
#include <omp.h>
#endif

namespace sg {
namespace {

thread_local Rank* tls_rank = nullptr;
thread_local Rank* tls_own = nullptr;  // the private one, once it is made

void flush_this_thread() {
#if defined(__x86_64__)
  _mm_setcsr(_mm_getcsr() | 0x8040);  // FTZ and DAZ
#elif defined(__aarch64__)
  std::uint64_t fpcr;
  asm volatile("mrs %0, fpcr" : "=r"(fpcr));
  asm volatile("msr fpcr, %0" ::"r"(fpcr | (std::uint64_t{1} << 24)));
#endif
}

}  // namespace

int available_cores() {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cores = CPU_COUNT(&set);
#endif
  if (const char* text = std::getenv("OMP_NUM_THREADS")) {
    const int asked = std::atoi(text);
    if (asked > 0) cores = std::min(cores, asked);
  }
  return std::max(cores, 1);
}

void flush_denormals(int threads) {
#if SG_OPENMP
  omp_set_num_threads(threads);  // libraries that ask OpenMP for its default get this rank's share
  omp_set_dynamic(0);  // and all of it: a team that grew later would have unflushed threads
#endif
  const char* keep = std::getenv("SHARDGRAD_DENORMALS");
  if (keep != nullptr && std::strcmp(keep, "1") == 0) return;
  flush_this_thread();
#if SG_OPENMP
#pragma omp parallel num_threads(threads)
  flush_this_thread();
#else
  static_cast<void>(threads);
#endif
}

Rank::Rank() : threads(available_cores()) {}

Rank::Rank(int index_, int world_size_, int threads_, std::uint64_t seed_)
    : index(index_), world_size(world_size_), threads(threads_), seed(seed_) {}

Rank& current_rank() {
  if (tls_rank != nullptr) return *tls_rank;
  thread_local Rank own;
  thread_local const bool flushed = (flush_denormals(own.threads), true);
  static_cast<void>(flushed);
  tls_own = &own;
  return own;
}

Rank* thread_rank() { return tls_rank != nullptr ? tls_rank : tls_own; }

RankScope::RankScope(Rank& rank) : previous_(std::exchange(tls_rank, &rank)) {
  flush_denormals(rank.threads);
}

RankScope::~RankScope() { tls_rank = previous_; }

}  // namespace sg
