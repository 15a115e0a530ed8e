#include "data/sampler.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <set>

#include "data/permutation.h"
#include "support.h"

namespace sg::data {
namespace {

using Samples = std::vector<std::int32_t>;

SamplerOptions options(std::int64_t size, std::int64_t batch, int rank, int ranks, int accumulate) {
  return {.size = size,
          .batch_size = batch,
          .accumulate = accumulate,
          .rank = rank,
          .ranks = ranks,
          .seed = 3,
          .shuffle = true,
          .tail = Tail::drop};
}

Samples samples_of(Sampler& sampler, std::int64_t epoch, std::int64_t step, int micro) {
  Samples samples(static_cast<std::size_t>(sampler.micro_batch()));
  sampler.samples(epoch, step, micro, samples);
  return samples;
}

TEST(EpochOrder, IsAPermutationOfItsSeedAndEpochAlone) {
  const Samples order = epoch_order(1000, 3, 0, true);
  EXPECT_EQ(order, epoch_order(1000, 3, 0, true));
  EXPECT_NE(order, epoch_order(1000, 3, 1, true));
  EXPECT_NE(order, epoch_order(1000, 4, 0, true));
  Samples sorted = order, identity(1000);
  std::sort(sorted.begin(), sorted.end());
  std::iota(identity.begin(), identity.end(), 0);
  EXPECT_EQ(sorted, identity);
  EXPECT_EQ(epoch_order(1000, 3, 5, false), identity);
}

TEST(EpochOrder, IsPinned) {  // or recorded runs could not be repeated
  EXPECT_EQ(epoch_order(10, 0, 0, true), (Samples{2, 7, 5, 1, 4, 3, 9, 0, 8, 6}));
  EXPECT_EQ(epoch_order(10, 7, 2, true), (Samples{3, 1, 8, 9, 7, 6, 5, 0, 2, 4}));
}

TEST(EpochOrder, EveryPlaceIsEquallyLikely) {
  // Sample s at position p, over 6000 epochs of 6 samples: 1000 expected, deviation 29.
  std::array<std::array<int, 6>, 6> counts{};
  for (int epoch = 0; epoch < 6000; ++epoch) {
    const Samples order = epoch_order(6, 11, epoch, true);
    for (std::size_t p = 0; p < 6; ++p) ++counts[p][static_cast<std::size_t>(order[p])];
  }
  for (const auto& row : counts)
    for (const int count : row) EXPECT_NEAR(count, 1000, 5 * 29);
}

TEST(Shuffle, HandlesFewValues) {
  Samples none, one{5};
  shuffle(std::span<std::int32_t>(none), 1);
  shuffle(std::span<std::int32_t>(one), 1);
  EXPECT_EQ(one, Samples{5});
}

TEST(Sampler, UnionOverRanksIsTheGlobalOrder) {
  for (int ranks = 1; ranks <= 8; ++ranks)
    for (int accumulate = 1; accumulate <= 3; ++accumulate) {
      const std::int64_t batch = std::int64_t{ranks} * accumulate * 3, size = 5 * batch + 7;
      const std::int64_t steps = size / batch;
      for (const std::int64_t epoch : {0, 1, 4}) {
        const Samples order = epoch_order(size, 3, epoch, true);
        Samples seen(order.size(), -1);
        for (int r = 0; r < ranks; ++r) {
          Sampler sampler(options(size, batch, r, ranks, accumulate));
          ASSERT_EQ(sampler.steps_per_epoch(), steps);
          ASSERT_EQ(sampler.micro_batch(), 3);
          for (std::int64_t k = 0; k < steps; ++k)
            for (int a = 0; a < accumulate; ++a) {
              const Slice slice = sampler.slice(k, a);
              EXPECT_EQ(slice.first, (a * ranks + r) * 3);
              EXPECT_EQ(slice.begin, k * batch + slice.first);
              EXPECT_EQ(slice.valid, 3);
              const Samples got = samples_of(sampler, epoch, k, a);
              std::copy(got.begin(), got.end(), seen.begin() + slice.begin);
            }
        }
        // Whole batches are the order, position by position; the incomplete last batch is dropped.
        EXPECT_TRUE(std::equal(order.begin(), order.begin() + steps * batch, seen.begin()));
        EXPECT_EQ(std::count(seen.begin(), seen.end(), -1), size - steps * batch);
      }
    }
}

TEST(Sampler, RanksAndAccumulationCutTheSameSlices) {
  const auto slices = [](int ranks, int accumulate) {  // of step 2, in slice order
    std::vector<Samples> all(static_cast<std::size_t>(ranks * accumulate));
    for (int r = 0; r < ranks; ++r) {
      Sampler sampler(options(500, 48, r, ranks, accumulate));
      for (int a = 0; a < accumulate; ++a)
        all[static_cast<std::size_t>(a * ranks + r)] = samples_of(sampler, 1, 2, a);
    }
    return all;
  };
  for (const int slices_a_step : {2, 4, 6, 8, 12, 24})
    for (int ranks = 1; ranks <= slices_a_step; ++ranks) {
      if (slices_a_step % ranks != 0) continue;
      EXPECT_EQ(slices(ranks, slices_a_step / ranks), slices(1, slices_a_step));
    }
}

TEST(Sampler, NoShuffleIsTheFilesOwnOrder) {
  SamplerOptions o = options(100, 8, 1, 2, 2);
  o.shuffle = false;
  Sampler sampler(o);
  for (const std::int64_t epoch : {0, 3}) {
    EXPECT_EQ(samples_of(sampler, epoch, 0, 0), (Samples{2, 3}));  // slice 1
    EXPECT_EQ(samples_of(sampler, epoch, 0, 1), (Samples{6, 7}));  // slice 3
    EXPECT_EQ(samples_of(sampler, epoch, 5, 1), (Samples{46, 47}));
  }
}

TEST(Sampler, EpochsMayComeInAnyOrder) {
  Sampler sampler(options(100, 10, 0, 1, 1));
  const Samples third = samples_of(sampler, 3, 4, 0), first = samples_of(sampler, 1, 4, 0);
  EXPECT_NE(third, first);
  EXPECT_EQ(samples_of(sampler, 3, 4, 0), third);
}

TEST(Sampler, PaddedTailCoversEachSampleOnce) {
  for (int ranks = 1; ranks <= 8; ++ranks)
    for (const std::int64_t size : {1, 5, 31, 32, 33, 100}) {
      const std::int64_t batch = 4 * ranks;
      std::multiset<std::int32_t> seen;
      for (int r = 0; r < ranks; ++r) {
        SamplerOptions o = options(size, batch, r, ranks, 1);
        o.tail = Tail::pad;
        o.shuffle = false;
        Sampler sampler(o);
        ASSERT_EQ(sampler.steps_per_epoch(), (size + batch - 1) / batch) << "equal on every rank";
        for (std::int64_t k = 0; k < sampler.steps_per_epoch(); ++k) {
          const Samples got = samples_of(sampler, 0, k, 0);
          const std::int64_t valid = sampler.slice(k, 0).valid;
          ASSERT_EQ(got.size(), 4u);
          seen.insert(got.begin(), got.begin() + valid);
          for (auto s = got.begin() + valid; s != got.end(); ++s) EXPECT_EQ(*s, size - 1);
        }
      }
      EXPECT_EQ(static_cast<std::int64_t>(seen.size()), size);
      std::int32_t next = 0;
      for (const std::int32_t s : seen) EXPECT_EQ(s, next++);
    }
}

TEST(Sampler, TakesRankWorldAndSeedFromTheCurrentRank) {
  Rank rank(2, 3, 1, 77);
  const RankScope scope(rank);
  const SamplerOptions o{.size = 9, .batch_size = 3};
  EXPECT_EQ(o.rank, 2);
  EXPECT_EQ(o.ranks, 3);
  EXPECT_EQ(o.seed, 77u);
  Sampler sampler(o);
  EXPECT_EQ(samples_of(sampler, 0, 1, 0)[0], epoch_order(9, 77, 0, true)[3 + 2]);
}

TEST(Sampler, Errors) {
  const auto error = [](SamplerOptions o) { return error_of([&] { Sampler sampler(o); }); };
  EXPECT_EQ(error(options(100, 30, 0, 4, 2)),
            "[sampler] batch size 30 is not a whole number of micro-batches: 4 ranks x 2 "
            "accumulation = 8 slices; use 32 (or 24)");
  EXPECT_EQ(error(options(100, 5, 0, 4, 2)),
            "[sampler] batch size 5 is not a whole number of micro-batches: 4 ranks x 2 "
            "accumulation = 8 slices; use 8");
  EXPECT_EQ(error(options(100, 0, 0, 4, 1)),
            "[sampler] batch size 0; use a positive multiple of 4");
  EXPECT_EQ(error(options(100, 8, 0, 0, 1)),
            "[sampler] 0 ranks x 1 accumulation; both must be at least 1");
  EXPECT_EQ(error(options(100, 8, 4, 4, 1)), "[sampler] rank 4 of 4 ranks; expected 0 to 3");
  EXPECT_EQ(error(options(0, 8, 0, 1, 1)),
            "[sampler] a data set of 0 samples; expected 1 to 2147483647");
  EXPECT_EQ(error(options(20, 32, 0, 1, 1)),
            "[sampler] 20 samples do not make one batch of 32, and training drops an incomplete "
            "one; use a smaller batch, or Tail::pad for evaluation");
  Sampler sampler(options(100, 8, 0, 2, 2));
  EXPECT_EQ(error_of([&] { sampler.slice(12, 0); }), "[sampler] step 12 of an epoch of 12 steps");
  EXPECT_EQ(error_of([&] { sampler.slice(0, 2); }), "[sampler] micro-batch 2 of 2");
  Samples two(2), three(3);
  EXPECT_EQ(error_of([&] { sampler.samples(-1, 0, 0, two); }),
            "[sampler] epoch -1; epochs count from 0");
  EXPECT_EQ(error_of([&] { sampler.samples(0, 0, 0, three); }),
            "[sampler] room for 3 samples, a micro-batch has 2");
}

}  // namespace
}  // namespace sg::data
