// One collective over and over, between processes or threads, for bench/compare_pytorch.py:
//
//   shardgrad run --nproc-per-node 2 collectives_bench OP BYTES WARMUP STEPS FILE
//
// OP is all_gather or reduce_scatter, BYTES a rank's full f32 buffer, of which its shard is a
// slice: in place, as the two halves of an all-reduce are. The result of the first is checked;
// after the last, rank 0 writes {"seconds": [STEPS]} to FILE. A step lasts until what it reads has
// come, what it posted has gone and the memory may be used again.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "dist/arrows.h"
#include "dist/job.h"

namespace sg::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Arguments {
  bool gather;
  std::int64_t bytes, warmup, steps;
  std::string file;
};

std::int64_t number(std::string_view name, std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  SG_CHECK(error == std::errc() && end == text.data() + text.size() && value >= 0,
           "{} '{}': a whole number expected", name, text);
  return value;
}

Arguments parse(const std::vector<std::string>& words) {
  SG_CHECK(words.size() == 5, "arguments: OP BYTES WARMUP STEPS FILE, got {} words", words.size());
  SG_CHECK(words[0] == "all_gather" || words[0] == "reduce_scatter",
           "OP '{}': all_gather or reduce_scatter expected", words[0]);
  return {.gather = words[0] == "all_gather",
          .bytes = number("BYTES", words[1]),
          .warmup = number("WARMUP", words[2]),
          .steps = number("STEPS", words[3]),
          .file = words[4]};
}

// What rank r has at place i: whole numbers, so that sums are exact.
float sample(int r, std::int64_t i) { return static_cast<float>((r + 1) * (i % 1000)); }

// Elements from `first` on, against the sums of the ranks [from, to).
void check(const Tensor& tensor, std::int64_t first, int from, int to) {
  const float* p = tensor.data<float>();
  for (std::int64_t i = 0, n = tensor.numel(); i < n; ++i) {
    float wanted = 0;
    for (int r = from; r < to; ++r) wanted += sample(r, first + i);
    SG_CHECK(p[i] == wanted, "element {}: expected {}, got {}", first + i, wanted, p[i]);
  }
}

/// A rank of the whole run; returns what its steps took.
std::vector<double> run(const Arguments& arguments, const Rank& rank) {
  const int n = rank.world_size;
  const std::int64_t numel = arguments.bytes / 4, shard_numel = numel / n;
  SG_CHECK(numel > 0 && shard_numel * n * 4 == arguments.bytes,
           "BYTES {}: a multiple of 4 x {} ranks expected", arguments.bytes, n);
  const Tensor full = Tensor::empty({numel}), shard = dist::shard_of(full, rank.index, n);
  float* p = full.data<float>();
  for (std::int64_t i = 0; i < numel; ++i) p[i] = sample(rank.index, i);

  dist::Comm& comm = dist::current_comm();
  const auto once = [&] {
    if (arguments.gather)
      dist::start_all_gather(comm, -1, shard, full).wait_readers();
    else
      dist::start_reduce_scatter(comm, -1, full, shard, false).wait_readers();
  };
  once();
  if (arguments.gather)
    for (int r = 0; r < n; ++r) check(dist::shard_of(full, r, n), r * shard_numel, r, r + 1);
  else
    check(shard, rank.index * shard_numel, 0, n);

  std::fill_n(p, numel, 0.0F);  // sums that stay what they are
  std::vector<double> times;
  for (std::int64_t i = 0; i < arguments.warmup + arguments.steps; ++i) {
    const auto start = Clock::now();
    once();
    const std::chrono::duration<double> time = Clock::now() - start;
    if (i >= arguments.warmup) times.push_back(time.count());
  }
  return times;
}

}  // namespace
}  // namespace sg::bench

int main(int argc, char** argv) {
  using namespace sg;
  try {
    const std::vector<std::string> words(argv + 1, argv + argc);
    const bench::Arguments arguments = bench::parse(words);
    dist::Job job(2, {.threads = 1}, fmt::format("{}", fmt::join(words, " ")));
    job.run([&](Rank& rank) {
      const std::vector<double> times = bench::run(arguments, rank);
      if (rank.index > 0) return;
      std::ofstream file(arguments.file);
      file << nlohmann::json{{"seconds", times}} << '\n' << std::flush;
      SG_CHECK(file.good(), "cannot write {}", arguments.file);
    });
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "collectives_bench: {}\n", error.what());
    return 1;
  }
}
