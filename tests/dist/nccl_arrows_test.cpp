// The arrows between GPUs that NCCL connects.
#include "tests/dist/nccl_support.h"
#if SG_NCCL && SG_STAND_IN
#include <nccl.h>

#include "dist/comm/watch.h"
#endif

namespace sg::dist {
namespace {

// What rank r has, and what its part of the sum in rank order is.
constexpr std::int64_t kShard = 5 * 64;
std::vector<float> part_of(int rank, int ranks) {
  return wild_numbers<float>(static_cast<std::size_t>(kShard * ranks), 40 + rank);
}
std::vector<float> sum_of(int rank, int ranks, std::vector<float> start = {}) {
  for (int r = 0; r < ranks; ++r) {
    const std::vector<float> part = part_of(r, ranks);
    const auto mine = part.begin() + rank * kShard;
    if (start.empty())
      start.assign(mine, mine + kShard);
    else
      for (std::int64_t i = 0; i < kShard; ++i) start[static_cast<std::size_t>(i)] += mine[i];
  }
  return start;
}

TEST(NcclArrows, AreThoseOfThreadsInEveryForm) {
  SKIP_WITHOUT_GPUS(1);
  for (const int ranks : {1, 2, 3, 4}) {
    if (cuda::device_count() < ranks) break;
    launch_ranks(
        ranks,
        [&](Rank& rank) {
          EXPECT_EQ(rank.device, cuda_device(rank.index));
          Comm& comm = current_comm();
          const std::vector<float> mine = part_of(rank.index, ranks);
          const std::vector<float> start = wild_numbers<float>(kShard, 7);
          const auto sum = bits_of(sum_of(rank.index, ranks));
          const Tensor partial = Tensor::from(mine, {kShard * ranks});
          const Tensor out = Tensor::full({kShard}, 42, DType::f32);
          start_reduce_scatter(comm, 3, partial, out, false).wait_readers();
          EXPECT_EQ(bits_of<float>(out), sum);
          EXPECT_EQ(bits_of<float>(partial), bits_of(mine)) << "what was posted stays as it is";
          const Tensor folded = Tensor::from(start, {kShard});
          start_reduce_scatter(comm, 3, partial, folded, true).wait_readers();
          EXPECT_EQ(bits_of<float>(folded), bits_of(sum_of(rank.index, ranks, start)));
          const Tensor slice = shard_of(partial, rank.index, ranks);
          start_reduce_scatter(comm, 3, partial, slice, false).wait_readers();
          EXPECT_EQ(bits_of<float>(slice), sum) << "in place";

          std::vector<std::uint32_t> all;
          for (int r = 0; r < ranks; ++r)
            for (const std::uint32_t word : bits_of(sum_of(r, ranks))) all.push_back(word);
          const Tensor full = Tensor::full({kShard * ranks}, 42, DType::f32);
          start_all_gather(comm, 5, out, full).wait_readers();
          EXPECT_EQ(bits_of<float>(full), all);
          const Tensor place = Tensor::full({kShard * ranks}, 42, DType::f32);
          shard_of(place, rank.index, ranks).copy_from(out);
          start_all_gather(comm, 5, shard_of(place, rank.index, ranks), place).wait_readers();
          EXPECT_EQ(bits_of<float>(place), all) << "in place";

          const std::uint64_t word = static_cast<std::uint64_t>(rank.index);
          EXPECT_EQ(exchange(comm, "control", {&word, 1}).size(), static_cast<std::size_t>(ranks));
          const std::int64_t bytes = (ranks - 1) * kShard * 4;
          if (ranks == 1) {
            EXPECT_TRUE(rank.ledger().traffic(Phase::training).empty());
          } else {
            EXPECT_EQ(rank.ledger().traffic(Phase::training, "reduce_scatter"),
                      (Traffic{3, 3 * bytes}));
            EXPECT_EQ(rank.ledger().traffic(Phase::training, "all_gather"),
                      (Traffic{2, 2 * bytes}));
          }
        },
        with_nccl());
  }
}

TEST(NcclArrows, ScratchIsOneBlockThatIsBookedAndGivenBack) {
  SKIP_WITHOUT_GPUS(4);
  for (const bool deterministic : {true, false}) {
    launch_ranks(
        4,
        [&](Rank& rank) {
          Comm& comm = current_comm();
          const Tensor partial = Tensor::from(part_of(rank.index, 4), {kShard * 4});
          const Tensor out = Tensor::zeros({kShard});
          std::vector<Ready<Tensor>> all;
          for (int k = 0; k < 6; ++k)
            all.push_back(start_reduce_scatter(comm, 3, partial, out, k % 2 == 1));
          // Three shards of the others, or the one sum that is folded onto what is there.
          EXPECT_EQ(rank.ledger().live(Kind::buffers), (deterministic ? 3 : 1) * kShard * 4);
          comm.quiesce();
          EXPECT_EQ(rank.ledger().live(Kind::buffers), 0);
          out.to_doubles();
        },
        with_nccl(deterministic));
  }
}

TEST(NcclArrows, HundredsMayBeStartedBeforeTheFirstIsWaitedFor) {
  SKIP_WITHOUT_GPUS(3);
  launch_ranks(
      3,
      [&](Rank& rank) {
        Comm& comm = current_comm();
        std::vector<Ready<Tensor>> gathers;
        for (int k = 0; k < 400; ++k) {
          gathers.push_back(start_all_gather(comm, k, Tensor::full({64}, 10 * k + rank.index),
                                             Tensor::zeros({3 * 64})));
          if (k % 7 == 0) {
            const auto word = static_cast<std::uint64_t>(k);
            EXPECT_EQ(exchange(comm, "control", {&word, 1}), std::vector<std::uint64_t>(3, word));
          }
        }
        EXPECT_LE(comm.unreleased(), Transport::kDepth);
        for (int k = 0; k < 400; ++k) {
          const std::vector<double> full = gathers[static_cast<std::size_t>(k)].get().to_doubles();
          for (int r = 0; r < 3; ++r)
            ASSERT_EQ(full[static_cast<std::size_t>(r * 64 + 5)], 10 * k + r);
        }
      },
      with_nccl());
#if SG_NCCL && SG_STAND_IN
  EXPECT_LE(cuda::fake::nccl_most_queued(), static_cast<int>(Watch::kMost))
      << "nothing is to wait for room in NCCL's and the driver's queues";
#endif
}

}  // namespace
}  // namespace sg::dist
