// Updates beside what the machine's memory allows, measured in turns in the same run: `of_limit` is
// the median time of the limit over the median time of the update. The limit of Adam is an in-place
// read-modify-write of as many bytes (28 a parameter), that of the squares of the gradient norm a
// plain read.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "core/parallel.h"
#include "core/tensor.h"
#include "optim/adam.h"
#include "optim/clip.h"

namespace sg {
namespace {

using Clock = std::chrono::steady_clock;

template <class F>
double seconds(F&& f) {
  const auto start = Clock::now();
  f();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + std::ssize(values) / 2, values.end());
  return values[values.size() / 2];
}

// The yardstick gets the widest registers too; with SSE it would lose a quarter and flatter us.
using Vector [[gnu::vector_size(64)]] = float;

[[gnu::always_inline]] inline void modify(float* data, std::int64_t n) {
  auto* vectors = reinterpret_cast<Vector*>(data);
  for (std::int64_t i = 0; i < n / 16; ++i) vectors[i] = vectors[i] * 0.999f;
}

[[gnu::always_inline]] inline void read(const float* data, std::int64_t n) {
  const auto* vectors = reinterpret_cast<const Vector*>(data);
  Vector sums[4] = {};
  for (std::int64_t i = 0; i + 4 <= n / 16; i += 4)
    for (int k = 0; k < 4; ++k) sums[k] += vectors[i + k];
  benchmark::DoNotOptimize(sums);
}

#if SG_ISA_X86
[[gnu::target("avx2")]] void modify_avx2(float* data, std::int64_t n) { modify(data, n); }
[[gnu::target("avx512f")]] void modify_avx512(float* data, std::int64_t n) { modify(data, n); }
[[gnu::target("avx2")]] void read_avx2(float* data, std::int64_t n) { read(data, n); }
[[gnu::target("avx512f")]] void read_avx512(float* data, std::int64_t n) { read(data, n); }
#endif
void modify_plain(float* data, std::int64_t n) { modify(data, n); }
void read_plain(float* data, std::int64_t n) { read(data, n); }

using Pass = void (*)(float*, std::int64_t);

Pass widest([[maybe_unused]] Pass avx512, [[maybe_unused]] Pass avx2, [[maybe_unused]] Pass plain) {
#if SG_ISA_X86
  if (__builtin_cpu_supports("avx512f")) return avx512;
  if (__builtin_cpu_supports("avx2")) return avx2;
#endif
  return plain;
}

#if SG_ISA_X86
const Pass kModify = widest(modify_avx512, modify_avx2, modify_plain);
const Pass kRead = widest(read_avx512, read_avx2, read_plain);
#else
const Pass kModify = modify_plain;
const Pass kRead = read_plain;
#endif

/// `pass` over the whole 64-element blocks of the first `n` elements, on the rank's threads.
void sweep(Pass pass, const Tensor& t, std::int64_t n) {
  parallel_for(n / 64, 256, [&](std::int64_t begin, std::int64_t end) {
    pass(t.data<float>() + begin * 64, (end - begin) * 64);
  });
}

Tensor filled(std::int64_t n, float scale) {
  const Tensor t = Tensor::empty({n});
  parallel_for(n, 4096, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) t.data<float>()[i] = scale * float(i % 101);
  });
  return t;
}

template <class T>
std::span<T> flat(const Tensor& t) {
  return {t.data<float>(), static_cast<std::size_t>(t.numel())};
}

void Adam(benchmark::State& state) {
  const std::int64_t n = state.range(0);
  Rank rank(0, 1, static_cast<int>(state.range(1)), 0);
  const RankScope scope(rank);
  const Tensor param = filled(n, 1e-2f), grad = filled(n, 1e-3f);
  const Tensor first = filled(n, 1e-3f), second = filled(n, 1e-4f);
  const std::span<float> states[] = {flat<float>(first), flat<float>(second)};
  const auto adam = optim::adam();
  optim::StepValues values;
  std::vector<double> update, limit;
  for (auto _ : state) {
    limit.push_back(seconds([&] {
      for (const Tensor& t : {param, first, second}) sweep(kModify, t, n);
      sweep(kModify, grad,
            n / 2);  // 4 + 4 + 4 of 28 bytes read and written, and 2 + 2 of the gradient
    }));
    update.push_back(seconds([&] {
      adam->update(flat<float>(param), flat<const float>(grad), states, adam->defaults(), values);
    }));
    ++values.step;
    state.SetIterationTime(update.back());
  }
  state.counters["GB/s"] = 28e-9 * static_cast<double>(n) / median(update);
  state.counters["limit_GB/s"] = 28e-9 * static_cast<double>(n) / median(limit);
  state.counters["of_limit"] = median(limit) / median(update);
}

void SquaresOfGradients(benchmark::State& state) {
  const std::int64_t n = state.range(0);
  Rank rank(0, 1, static_cast<int>(state.range(1)), 0);
  const RankScope scope(rank);
  const Tensor grad = filled(n, 1e-3f);
  std::vector<double> squares, limit;
  for (auto _ : state) {
    limit.push_back(seconds([&] { sweep(kRead, grad, n); }));
    ExactSum sum;
    squares.push_back(seconds([&] { optim::add_squares(flat<const float>(grad), 4, sum); }));
    benchmark::DoNotOptimize(sum);
    state.SetIterationTime(squares.back());
  }
  state.counters["GB/s"] = 4e-9 * static_cast<double>(n) / median(squares);
  state.counters["limit_GB/s"] = 4e-9 * static_cast<double>(n) / median(limit);
  state.counters["of_limit"] = median(limit) / median(squares);
}

// 64M parameters as a large model has, and the tutorial net's 62006, which stay in cache.
void sizes(benchmark::internal::Benchmark* b) {
  for (const int threads : {1, available_cores()}) {
    b->Args({std::int64_t{64} << 20, threads});
    if (available_cores() == 1) break;
  }
  b->ArgNames({"n", "threads"})->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(15);
}
void small_sizes(benchmark::internal::Benchmark* b) {
  b->Args({62006, 1})->ArgNames({"n", "threads"})->UseManualTime()->Unit(benchmark::kMicrosecond);
}

BENCHMARK(Adam)->Apply(sizes);
BENCHMARK(SquaresOfGradients)->Apply(sizes);
BENCHMARK(Adam)->Name("AdamInCache")->Apply(small_sizes);
BENCHMARK(SquaresOfGradients)->Name("SquaresInCache")->Apply(small_sizes);

}  // namespace
}  // namespace sg
