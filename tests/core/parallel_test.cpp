// Every part of a parallel loop runs, once and with the same bounds, whatever team OpenMP grants.
#include "core/parallel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

#include "core/ops.h"
#include "tests/support/testing.h"

namespace sg {
namespace {

using Parts = std::vector<std::pair<std::int64_t, std::int64_t>>;

// What parallel_for(n, grain) hands out on a rank of `threads` threads, in order.
Parts parts_of(std::int64_t n, std::int64_t grain, int threads) {
  Rank rank(0, 1, threads, 0);
  const RankScope scope(rank);
  Parts parts;
  std::mutex mutex;
  parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
    const std::lock_guard lock(mutex);
    parts.emplace_back(begin, end);
  });
  std::sort(parts.begin(), parts.end());
  return parts;
}

// The definition, computed without any thread.
Parts expected_parts(std::int64_t n, std::int64_t grain, int threads) {
  Parts parts;
  const std::int64_t count = std::min<std::int64_t>(threads, std::max<std::int64_t>(n / grain, 1));
  for (std::int64_t t = 0; t < count; ++t)
    if (n * t / count < n * (t + 1) / count) parts.emplace_back(n * t / count, n * (t + 1) / count);
  return parts;
}

void expect_every_part() {
  for (const int threads : {1, 2, 3, 8})
    for (const std::int64_t n : {0, 1, 2, 7, 1000})
      for (const std::int64_t grain : {1, 3, 400})
        EXPECT_EQ(parts_of(n, grain, threads), expected_parts(n, grain, threads))
            << n << " by " << grain << " on " << threads;
}

TEST(Parallel, PartsCoverTheRange) { expect_every_part(); }

// A team within a team is one thread, which runs all parts.
TEST(Parallel, CallsMayBeNested) {
  Rank rank(0, 1, 2, 0);
  const RankScope scope(rank);
  std::vector<Parts> inner(2);
  parallel_for(2, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      inner[static_cast<std::size_t>(i)] = parts_of(100, 1, 4);
  });
  for (const Parts& parts : inner) EXPECT_EQ(parts, expected_parts(100, 1, 4));
}

// Kernels that divide their work by the rank's threads, with a team of one in the inner call.
std::vector<Tensor> results() {
  Rank rank(0, 1, 3, 7);
  const RankScope scope(rank);
  const auto values = [](const Shape& shape, DType dtype) { return test::random(shape, dtype, 5); };
  return {ops::matmul(values({67, 129}, DType::f64), values({129, 65}, DType::f64)),
          ops::exp(values({100000}, DType::f32)),
          ops::sum(values({300, 999}, DType::f32), {0}, false),
          ops::sum(values({300, 999}, DType::f32), {}, false)};
}

TEST(Parallel, ASmallerTeamGivesTheSameBits) {
  const std::vector<Tensor> whole = results();
  std::vector<std::vector<Tensor>> nested(2);
  Rank rank(0, 1, 2, 0);
  const RankScope scope(rank);
  parallel_for(2, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) nested[static_cast<std::size_t>(i)] = results();
  });
  for (const std::vector<Tensor>& got : nested)
    for (std::size_t i = 0; i < whole.size(); ++i) test::expect_same_bits(got[i], whole[i]);
}

#if SG_OPENMP
TEST(Parallel, LibrariesAreToldWhatTheyWillGet) {
  Rank rank(0, 1, 3, 0);
  const RankScope scope(rank);
  EXPECT_EQ(omp_get_dynamic(), 0);
  EXPECT_EQ(set_library_threads(), std::min(3, omp_get_thread_limit()));
  EXPECT_EQ(omp_get_max_threads(), std::min(3, omp_get_thread_limit()));
  std::vector<int> told(3);
  parallel_for(3, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      told[static_cast<std::size_t>(i)] = set_library_threads() * omp_get_max_threads();
  });
  EXPECT_EQ(told, (std::vector<int>{1, 1, 1}));
}
#endif

}  // namespace
}  // namespace sg
