// Storage, ledger and allocator of a rank.
#include "core/memory.h"

#include <gtest/gtest.h>

#include <thread>

#include "core/parallel.h"
#include "core/tensor.h"
#include "tests/support/testing.h"

namespace sg {
namespace {

using test::error_of;

TEST(Ledger, BooksLiveAndPeakByKind) {
  Rank rank;
  const RankScope scope(rank);
  Ledger& ledger = rank.ledger();
  {
    const Tensor a = Tensor::zeros({256});
    EXPECT_EQ(ledger.live(Kind::activations), 1024);
    const Scoped kind(rank.kind, Kind::parameters);
    const Tensor b = Tensor::empty({10}, DType::bf16);
    EXPECT_EQ(ledger.live(Kind::parameters), 20);
    EXPECT_EQ(ledger.live_total(), 1044);
    b.storage()->set_kind(Kind::gathered);
    EXPECT_EQ(ledger.live(Kind::parameters), 0);
    EXPECT_EQ(ledger.live(Kind::gathered), 20);
  }
  EXPECT_EQ(ledger.live_total(), 0);
  EXPECT_EQ(ledger.peak(Kind::activations), 1024);
  EXPECT_EQ(ledger.peak_total(), 1044) << "moving bytes to another kind is no new byte";
  ledger.reset_peaks();
  EXPECT_EQ(ledger.peak_total(), 0);
}

TEST(Ledger, MetaTensorsAreBookedAndHaveNoBytes) {
  Rank rank;
  rank.device = kMeta;
  const RankScope scope(rank);
  const Tensor huge = Tensor::zeros({1'000'000'000, 1000});
  EXPECT_EQ(rank.ledger().live(Kind::activations), 4'000'000'000'000);
  EXPECT_TRUE(huge.is_meta());
  EXPECT_EQ(rank.memory->allocator.cached_bytes(), 0);
}

TEST(Ledger, ALimitRefusesAndLeavesNothingBehind) {
  Rank rank;
  const RankScope scope(rank);
  rank.ledger().set_limit(4096);
  const Tensor fits = Tensor::empty({1024});
  const std::string text = error_of([] { Tensor::empty({1}); });
  EXPECT_NE(text.find("limit"), std::string::npos) << text;
  EXPECT_EQ(rank.ledger().live_total(), 4096);
  rank.ledger().set_limit(0);
  EXPECT_EQ(error_of([] { Tensor::empty({1}); }), "no error");
}

TEST(Ledger, BooksARiseAsItsTensorsWould) {
  const auto work = [] {
    const Tensor a = Tensor::empty({100});
    {
      const Scoped kind(current_rank().kind, Kind::buffers);
      const Tensor b = Tensor::empty({300});
    }
    const Tensor c = Tensor::empty({150});
    c.storage()->set_kind(Kind::gathered);
  };
  Rank rank;
  const RankScope scope(rank);
  Ledger& ledger = rank.ledger();
  const Tensor stays = Tensor::empty({50});
  Tensor dies = Tensor::empty({10});
  const auto rise = std::make_shared<Rise>();
  {
    const Scoped recording(rank.rise, rise);
    Tensor elsewhere = Tensor::empty({60});
    std::thread([&] { elsewhere = {}; }).join();
    work();
    dies = {};  // from before: no part of it
  }
  EXPECT_EQ(rise->of(Kind::activations), 1000);
  EXPECT_EQ(rise->of(Kind::buffers), 1200);
  EXPECT_EQ(rise->of(Kind::gathered), 600);
  EXPECT_EQ(rise->total(), 1600);
  const auto peaks = [&] {
    std::vector<std::int64_t> out{ledger.live_total(), ledger.peak_total()};
    for (int k = 0; k < kKinds; ++k) out.push_back(ledger.peak(static_cast<Kind>(k)));
    return out;
  };
  ledger.reset_peaks();
  work();
  const auto allocated = peaks();
  ledger.reset_peaks();
  ledger.book(*rise);
  EXPECT_EQ(peaks(), allocated);

  ledger.set_limit(200 + 1600);
  ledger.book(*rise);
  ledger.set_limit(200 + 1599);
  EXPECT_EQ(error_of([&] { ledger.book(*rise); }),
            "[ledger] 1600 bytes of a replayed step do not fit: 200 of the rank's limit of 1799 "
            "bytes are in use; raise the limit, shard more (zero3) or use smaller micro-batches");
}

TEST(Ledger, CountsTraffic) {
  Ledger ledger;
  ledger.book_traffic(Phase::training, "all_gather", 100);
  ledger.book_traffic(Phase::training, "all_gather", 20);
  ledger.book_traffic(Phase::evaluation, "all_gather", 7);
  EXPECT_EQ(ledger.traffic(Phase::training, "all_gather"), (Traffic{2, 120}));
  EXPECT_EQ(ledger.traffic(Phase::evaluation, "all_gather"), (Traffic{1, 7}));
  EXPECT_EQ(ledger.traffic(Phase::training, "reduce_scatter"), (Traffic{}));
  ledger.reset_traffic();
  EXPECT_TRUE(ledger.traffic(Phase::training).empty());
}

TEST(Storage, MayOutliveItsRankAndDieOnAnotherThread) {
  Tensor kept;
  {
    Rank rank;
    const RankScope scope(rank);
    kept = Tensor::full({1000}, 3);
  }
  EXPECT_EQ(kept.to_doubles()[999], 3);
  std::thread([tensor = std::move(kept)]() mutable { tensor = Tensor(); }).join();
  EXPECT_FALSE(kept.defined());
}

TEST(Storage, WrapsMemoryOfOthersWithoutBooking) {
  const auto owner = std::make_shared<std::vector<float>>(4, 2.0f);
  const std::int64_t before = current_rank().ledger().live_total();
  const std::weak_ptr<std::vector<float>> watch = owner;
  {
    const Tensor x(Storage::wrap(owner->data(), 16, owner), 0, {4}, {1}, DType::f32);
    EXPECT_EQ(x.to_doubles(), std::vector<double>(4, 2.0));
    EXPECT_EQ(watch.use_count(), 2);
    EXPECT_EQ(current_rank().ledger().live_total(), before);
  }
  EXPECT_EQ(watch.use_count(), 1);
}

TEST(Allocator, KeepsFreedBlocksForTheirSize) {
  CachingAllocator allocator;
  void* a = allocator.allocate(1000);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a) % 64, 0u);
  allocator.free(a, 1000);
  EXPECT_EQ(allocator.cached_bytes(),
            static_cast<std::int64_t>(CachingAllocator::block_size(1000)));
  EXPECT_EQ(allocator.allocate(CachingAllocator::block_size(1000)), a);
  EXPECT_EQ(allocator.cached_bytes(), 0);
  allocator.free(a, 1000);
  allocator.trim();
  EXPECT_EQ(allocator.cached_bytes(), 0);
}

TEST(Allocator, RoundsUpByAnEighthAtMost) {
  EXPECT_EQ(CachingAllocator::block_size(0), 64u);
  for (std::size_t bytes = 1; bytes < 1 << 20; bytes = bytes * 5 / 4 + 1) {
    const std::size_t block = CachingAllocator::block_size(bytes);
    EXPECT_GE(block, bytes);
    EXPECT_LE(block, std::max<std::size_t>(bytes + bytes / 8 + 64, 64)) << bytes;
    EXPECT_EQ(block % 64, 0u);
    EXPECT_EQ(CachingAllocator::block_size(block), block);
  }
}

TEST(Rank, ScopesNest) {
  Rank outer(0, 2, 1, 5), inner(1, 2, 1, 6);
  Rank* const own = &current_rank();
  {
    const RankScope a(outer);
    EXPECT_EQ(&current_rank(), &outer);
    {
      const RankScope b(inner);
      EXPECT_EQ(current_rank().index, 1);
      std::thread([&] { EXPECT_NE(&current_rank(), &inner); }).join();
    }
    EXPECT_EQ(current_rank().index, 0);
  }
  EXPECT_EQ(&current_rank(), own);
  EXPECT_GE(available_cores(), 1);
}

TEST(ParallelFor, CoversEveryIndexOnce) {
  for (const int threads : {1, 2, 3, 5}) {
    const Scoped scope(current_rank().threads, threads);
    for (const std::int64_t n : {0, 1, 2, 7, 1000}) {
      for (const std::int64_t grain : {0, 1, 3, 400, 5000}) {
        std::vector<int> hits(static_cast<std::size_t>(n));
        parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
          EXPECT_LT(begin, end);
          for (std::int64_t i = begin; i < end; ++i) ++hits[static_cast<std::size_t>(i)];
        });
        EXPECT_EQ(hits, std::vector<int>(static_cast<std::size_t>(n), 1));
      }
    }
  }
}

}  // namespace
}  // namespace sg
