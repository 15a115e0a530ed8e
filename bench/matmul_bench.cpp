// Matrix products of the example nets' sizes and a large one beside the machine's peak (independent
// fused multiply-adds on as many threads) and, for f32, beside oneDNN's sgemm called directly, all
// in turns in the same run. `ratio` is the peak's time for as many operations over ours,
// `sgemm_ratio` oneDNN's time over ours.
#include <benchmark/benchmark.h>

#include <vector>

#include "bench/measure.h"
#include "bench/peak.h"
#include "core/ops.h"

#if SG_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#endif

namespace sg {
namespace {

template <class T>
Tensor filled(std::int64_t rows, std::int64_t columns) {
  const Tensor t = Tensor::empty({rows, columns}, dtype_of<T>);
  for (std::int64_t i = 0; i < t.numel(); ++i) t.data<T>()[i] = static_cast<T>(i % 13 - 6);
  return t;
}

/// [m, k] x [k, n]; `kind` 0 forward (the second factor transposed, as a layer's weight [n, k] is),
/// 1 neither, 2 the first transposed: the gradients of input and weight.
template <class T>
void Matmul(benchmark::State& state) {
  const std::int64_t m = state.range(0), k = state.range(1), n = state.range(2),
                     kind = state.range(3);
  Rank rank(0, 1, static_cast<int>(state.range(4)), 0);
  const RankScope scope(rank);
  const Tensor a_memory = kind == 2 ? filled<T>(k, m) : filled<T>(m, k);
  const Tensor b_memory = kind == 0 ? filled<T>(n, k) : filled<T>(k, n);
  const Tensor a = kind == 2 ? a_memory.transpose(0, 1) : a_memory;
  const Tensor b = kind == 0 ? b_memory.transpose(0, 1) : b_memory;
  const Tensor out = Tensor::empty({m, n}, dtype_of<T>);
  const double operations = 2.0 * static_cast<double>(m * k * n);
  std::vector<double> times, peaks, theirs;
  ops::matmul_into(out, a, b);
  for (auto _ : state) {
    peaks.push_back(bench::seconds_at_peak<T>(operations, rank.threads));
    ops::matmul_into(out, a,
                     b);  // what the peak has put to sleep or thrown out of the cache is back
    times.push_back(bench::seconds([&] { ops::matmul_into(out, a, b); }));
    state.SetIterationTime(times.back());
#if SG_ONEDNN
    if constexpr (sizeof(T) == 4)
      theirs.push_back(bench::seconds([&] {
        dnnl_sgemm(kind == 2 ? 'T' : 'N', kind == 0 ? 'T' : 'N', m, n, k, 1.0f, a.data<T>(),
                   kind == 2 ? m : k, b.data<T>(), kind == 0 ? k : n, 0.0f, out.data<T>(), n);
      }));
#endif
  }
  bench::report(state, "GFLOP/s", 1e-9 * operations, times, peaks);
  if (!theirs.empty()) {
    state.counters["sgemm_ratio"] = bench::quantile(theirs, 0.5) / bench::quantile(times, 0.5);
    state.counters["sgemm_ratio_best"] = bench::quantile(theirs, 0.1) / bench::quantile(times, 0.1);
  }
}

void sizes(benchmark::internal::Benchmark* b) {
  const std::int64_t layers[][3] = {
      {128, 3072, 512}, {128, 512, 512}, {128, 512, 10},  // mlp
      {128, 2048, 256},                                   // vgg
      {32, 400, 120},   {32, 120, 84},   {32, 84, 10},    // tutorial
  };
  std::vector<int> threads{1};
  if (available_cores() > 1) threads.push_back(2);
  for (const int t : threads) {
    for (const auto& [batch, in, out] : layers) {
      b->Args({batch, in, out, 0, t});  // x weight^T
      b->Args({batch, out, in, 1, t});  // dy weight
      b->Args({out, batch, in, 2, t});  // dy^T x
    }
    b->Args({1024, 1024, 1024, 1, t});
  }
  b->ArgNames({"m", "k", "n", "kind", "threads"})
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond)
      ->Iterations(60);
}

BENCHMARK_TEMPLATE(Matmul, float)->Apply(sizes);
BENCHMARK_TEMPLATE(Matmul, double)->Apply(sizes);

}  // namespace
}  // namespace sg
