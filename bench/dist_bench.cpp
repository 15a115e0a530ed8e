// Collectives of thread ranks beside a plain copy by as many threads, in turns in the same run.
// Both sides read and write as many bytes in all, so `ratio` is the median time of the copy over
// that of the collective. `bytes` is the full (padded) buffer of a rank.
#include <benchmark/benchmark.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "bench/measure.h"
#include "dist/arrows.h"
#include "dist/launch.h"

namespace sg::dist {
namespace {

/// All ranks start together: a rank that wakes up late is the scheduler's cost, not the
/// collective's.
class Gate {
 public:
  explicit Gate(int ranks) : ranks_(ranks) {}
  void wait() {
    const int round = round_.load();
    if (waiting_.fetch_add(1) + 1 == ranks_) {
      waiting_.store(0);
      round_.store(round + 1);
      return;
    }
    for (int spins = 0; round_.load() == round; ++spins)
      if (spins > 1000) std::this_thread::yield();
  }

 private:
  const int ranks_;
  std::atomic<int> waiting_{0}, round_{0};
};

enum class Kind { all_gather, reduce_scatter };

template <Kind kind>
void collective(benchmark::State& state) {
  const int ranks = static_cast<int>(state.range(0));
  const std::int64_t bytes = state.range(1), padded = bytes / 4, shard = padded / ranks;
  // A rank of an all-gather reads and writes the full buffer (a slice of it out of its own shard);
  // one of a reduce-scatter reads as much and writes its shard.
  const std::int64_t moved = kind == Kind::all_gather ? 2 * bytes : bytes + bytes / ranks;
  const std::int64_t copied = moved / 2;
  std::vector<double> times, limits;
  Gate gate(ranks);
  std::atomic<bool> more{true};
  launch_ranks(
      ranks,
      [&](Rank& rank) {
        Comm& comm = current_comm();
        const Tensor full = Tensor::full({padded}, 1 + rank.index), mine = Tensor::full({shard}, 2);
        const Tensor from = Tensor::full({copied / 4}, 3), to = Tensor::full({copied / 4}, 4);
        // The time of a round is that from the common start to the end of the last rank.
        const auto timed = [&](std::vector<double>& out, auto&& f) {
          gate.wait();
          const auto start = bench::Clock::now();
          f();
          gate.wait();
          if (rank.index == 0) out.push_back(bench::since(start));
        };
        const auto round = [&] {
          timed(limits, [&] {
            std::memcpy(to.raw_data(), from.raw_data(), static_cast<std::size_t>(copied));
            benchmark::ClobberMemory();
          });
          timed(times, [&] {
            if constexpr (kind == Kind::all_gather)
              start_all_gather(comm, 0, mine, full).wait_readers();
            else
              start_reduce_scatter(comm, 0, full, mine, false).wait_readers();
          });
        };
        for (int warm_up = 0; warm_up < 3; ++warm_up) round();
        if (rank.index == 0) {
          times.clear();
          limits.clear();
          for (auto _ : state) {
            gate.wait();
            round();
            state.SetIterationTime(times.back());
          }
          more = false;
          gate.wait();
        } else {
          for (gate.wait(); more; gate.wait()) round();
        }
      },
      {.threads = 1, .executor = Executor::inlined});

  bench::report(state, "GB/s", 1e-9 * static_cast<double>(ranks * moved), times, limits);
}

void sizes(benchmark::internal::Benchmark* b) {
  for (const int ranks : {2, 4})
    for (const std::int64_t kib : {64, 1024, 16 * 1024, 64 * 1024}) b->Args({ranks, kib << 10});
  b->ArgNames({"ranks", "bytes"})->UseManualTime()->Unit(benchmark::kMicrosecond)->MinTime(0.3);
}

BENCHMARK_TEMPLATE(collective, Kind::all_gather)->Name("AllGather")->Apply(sizes);
BENCHMARK_TEMPLATE(collective, Kind::reduce_scatter)->Name("ReduceScatter")->Apply(sizes);

}  // namespace
}  // namespace sg::dist
