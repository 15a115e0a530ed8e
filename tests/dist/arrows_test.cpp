// The arrows over the threads transport: values and order of summation.
#include "dist/arrows.h"
#include "tests/dist/support.h"

namespace sg::dist {
namespace {

constexpr std::int64_t kBlockOf64 = 64;

template <class T>
std::vector<T> rank_order_sum(const std::vector<std::vector<T>>& parts) {
  std::vector<T> sum = parts[0];
  for (std::size_t r = 1; r < parts.size(); ++r)
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += parts[r][i];
  return sum;
}

template <class T>
void check_gather_and_scatter(int ranks, std::int64_t blocks, Executor executor) {
  const std::int64_t shard = blocks * kBlockOf64, padded = shard * ranks;
  std::vector<std::vector<T>> parts;
  for (int r = 0; r < ranks; ++r)
    parts.push_back(wild_numbers<T>(static_cast<std::size_t>(padded), 100 + r));
  const std::vector<T> sum = rank_order_sum(parts);
  const std::vector<T> start = wild_numbers<T>(static_cast<std::size_t>(shard), 7);
  if (ranks > 2 && padded > 1000) {
    ASSERT_NE(bits_of(sum), bits_of(rank_order_sum(std::vector(parts.rbegin(), parts.rend()))))
        << "the values do not show the order";
  }

  launch_ranks(
      ranks,
      [&](Rank& rank) {
        Comm& comm = current_comm();
        const auto at = [&](const std::vector<T>& all) {
          return std::vector<T>(all.begin() + rank.index * shard,
                                all.begin() + (rank.index + 1) * shard);
        };
        const auto expect_sum = [&](const Tensor& got, const char* what) {
          EXPECT_EQ(bits_of<T>(got), bits_of(at(sum))) << what << ", rank " << rank.index;
        };
        {  // to a place of its own
          const Tensor partial = Tensor::from(parts[rank.index], {padded});
          const Tensor out = Tensor::full({shard}, 42, dtype_of<T>);
          start_reduce_scatter(comm, 3, partial, out, false).wait_readers();
          expect_sum(out, "reduce-scatter");
          EXPECT_EQ(bits_of<T>(partial), bits_of(parts[rank.index]))
              << "what was posted stays as it is";
        }
        {  // in place: only this rank's slice changes
          const Tensor partial = Tensor::from(parts[rank.index], {padded});
          const Tensor slice = shard_of(partial, rank.index, ranks);
          start_reduce_scatter(comm, 3, partial, slice, false).wait_readers();
          expect_sum(slice, "reduce-scatter in place");
          std::vector<T> expected = parts[rank.index];
          std::copy_n(at(sum).begin(), shard, expected.begin() + rank.index * shard);
          EXPECT_EQ(bits_of<T>(partial), bits_of(expected));
        }
        {  // folded onto what is there: ((start + p0) + p1) + ...
          const Tensor partial = Tensor::from(parts[rank.index], {padded});
          const Tensor out = Tensor::from(start, {shard});
          start_reduce_scatter(comm, 3, partial, out, true).wait_readers();
          std::vector<std::vector<T>> all{start};
          for (const auto& part : parts) all.push_back(at(part));
          EXPECT_EQ(bits_of<T>(out), bits_of(rank_order_sum(all))) << "fold, rank " << rank.index;
        }
        {  // gather of shards, out of place and in place
          const Tensor mine = Tensor::from(at(sum), {shard});
          const Tensor full = Tensor::full({padded}, 42, dtype_of<T>);
          start_all_gather(comm, 5, mine, full).wait_readers();
          EXPECT_EQ(bits_of<T>(full), bits_of(sum));
          const Tensor place = Tensor::full({padded}, 42, dtype_of<T>);
          shard_of(place, rank.index, ranks).copy_from(mine);
          start_all_gather(comm, 5, shard_of(place, rank.index, ranks), place).wait_readers();
          EXPECT_EQ(bits_of<T>(place), bits_of(sum)) << "in place";
        }
        // Bytes: (N - 1) times the shard's, each time; nothing where there is nobody to send to.
        const std::int64_t bytes = (ranks - 1) * shard * static_cast<std::int64_t>(sizeof(T));
        const Ledger& ledger = rank.ledger();
        if (ranks == 1) {
          EXPECT_TRUE(ledger.traffic(Phase::training).empty());
        } else {
          EXPECT_EQ(ledger.traffic(Phase::training, "reduce_scatter"), (Traffic{3, 3 * bytes}));
          EXPECT_EQ(ledger.traffic(Phase::training, "all_gather"), (Traffic{2, 2 * bytes}));
        }
      },
      {.threads = 1, .executor = executor});
}

class Arrows : public testing::TestWithParam<std::tuple<int, Executor>> {};

TEST_P(Arrows, SumInRankOrderBitForBit) {
  const auto [ranks, executor] = GetParam();
  for (const std::int64_t blocks : {1, 3, 37}) {
    check_gather_and_scatter<float>(ranks, blocks, executor);
    check_gather_and_scatter<double>(ranks, blocks, executor);
  }
}

TEST_P(Arrows, ExchangeGivesEverybodysWordsInRankOrder) {
  const auto [ranks, executor] = GetParam();
  launch_ranks(
      ranks,
      [&, n = ranks](Rank& rank) {
        for (std::uint64_t round = 0; round < 20; ++round) {
          const std::size_t words = round % 4;
          std::vector<std::uint64_t> mine, expected;
          for (std::size_t w = 0; w < words; ++w)
            mine.push_back(round * 1000 + static_cast<std::uint64_t>(rank.index) * 10 + w);
          for (int r = 0; r < n; ++r)
            for (std::size_t w = 0; w < words; ++w)
              expected.push_back(round * 1000 + static_cast<std::uint64_t>(r) * 10 + w);
          EXPECT_EQ(exchange(current_comm(), "control", mine), expected);
        }
        const Traffic sent = rank.ledger().traffic(Phase::training, "control");
        EXPECT_EQ(sent, n == 1 ? Traffic{} : (Traffic{20, (n - 1) * 8 * 5 * (0 + 1 + 2 + 3)}));
      },
      {.threads = 1, .executor = executor});
}

std::string arrows_name(const testing::TestParamInfo<std::tuple<int, Executor>>& info) {
  return fmt::format("{}ranks_{}", std::get<0>(info.param), name_of(std::get<1>(info.param)));
}
INSTANTIATE_TEST_SUITE_P(All, Arrows,
                         testing::Combine(testing::Range(1, 9), testing::ValuesIn(kExecutors)),
                         arrows_name);

TEST(Arrows, ManyThreadsGiveTheBitsOfOne) {
  const std::int64_t shard = 2'000 * kBlockOf64;
  std::map<int, std::vector<std::vector<std::uint32_t>>> results;
  for (const int threads : {1, 3}) {
    results[threads].resize(2);
    launch_ranks(2,
                 [&](Rank& rank) {
                   const Tensor partial =
                       Tensor::from(wild_numbers<float>(2 * shard, rank.index), {2 * shard});
                   const Tensor out = Tensor::empty({shard});
                   start_reduce_scatter(current_comm(), 0, partial, out, false).wait_readers();
                   results[threads][static_cast<std::size_t>(rank.index)] = bits_of<float>(out);
                 },
                 {.threads = threads});
  }
  EXPECT_EQ(results[1], results[3]);
}

TEST(Arrows, SixteenBitSumsAreRefusedByName) {
  const std::string text = error_of([] {
    launch_ranks(2, [](Rank&) {
      const Tensor partial = Tensor::zeros({128}, DType::bf16),
                   out = Tensor::zeros({64}, DType::bf16);
      start_reduce_scatter(current_comm(), 0, partial, out, false).get();
    });
  });
  EXPECT_HAS(text, "sums are kept in f32 or f64, got bf16");
}

}  // namespace
}  // namespace sg::dist
