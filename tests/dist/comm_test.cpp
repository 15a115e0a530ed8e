// The arrows over the threads transport: values, order of summation, ring, errors, deadlines.
#include <atomic>
#include <map>
#include <mutex>

#include "dist/arrows.h"
#include "tests/dist/support.h"

namespace sg::dist {
namespace {

constexpr std::int64_t kBlockOf64 = 64;

// ---- values

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

// ---- the sequence of collectives

class Sequence : public testing::TestWithParam<Executor> {};

// What rank r gathers from rank s in round k is s + 10 k.
struct Round {
  Tensor mine, full;
  Ready<Tensor> operation;
  static Round start(Comm& comm, int k) {
    Round round{Tensor::full({64}, comm.rank() + 10 * k), Tensor::empty({64 * comm.size()}), {}};
    round.operation = start_all_gather(comm, k, round.mine, round.full);
    return round;
  }
  void check(int k) const {
    const std::vector<float> values = full.to_vector<float>();
    for (std::size_t r = 0; r < values.size() / 64; ++r)
      ASSERT_EQ(values[r * 64], static_cast<float>(r) + static_cast<float>(10 * k));
  }
};

TEST_P(Sequence, HundredsMayBeStartedBeforeTheFirstIsWaitedFor) {
  for (const bool backwards : {false, true}) {
    launch_ranks(3,
                 [&](Rank&) {
                   constexpr int kRounds = 700;  // the transport remembers 256
                   std::vector<Round> rounds;
                   for (int k = 0; k < kRounds; ++k)
                     rounds.push_back(Round::start(current_comm(), k));
                   for (int i = 0; i < kRounds; ++i) {
                     const int k = backwards ? kRounds - 1 - i : i;
                     rounds[static_cast<std::size_t>(k)].operation.get();
                     rounds[static_cast<std::size_t>(k)].check(k);
                   }
                   for (Round& round : rounds) round.operation.wait_readers();
                   current_comm().quiesce();
                 },
                 {.threads = 1, .deadline = milliseconds(20'000), .executor = GetParam()});
  }
}

TEST_P(Sequence, EndlessUseNeedsNoQuiesceAndDoesNotGrow) {
  // An evaluation of many batches never changes a parameter, so nothing ever asks for quiet.
  launch_ranks(2,
               [&](Rank& rank) {
                 for (int k = 0; k < 3000; ++k) {
                   std::vector<std::uint64_t> mine(64, static_cast<std::uint64_t>(k));
                   exchange(current_comm(), "control", mine);
                 }
                 EXPECT_LE(current_comm().unreleased(), 256u);
                 EXPECT_EQ(rank.ledger().traffic(Phase::training, "control").calls, 3000);
               },
               {.threads = 1, .executor = GetParam()});
}

TEST_P(Sequence, RandomDelaysChangeNoBit) {
  std::vector<std::uint64_t> reference;
  for (int trial = 0; trial < 4; ++trial) {
    std::mutex mutex;
    std::map<int, std::vector<std::uint64_t>> results;
    launch_ranks(4,
                 [&](Rank& rank) {
                   std::mt19937 random(static_cast<unsigned>(trial * 100 + rank.index));
                   const auto dawdle = [&] {
                     if (trial > 0 && random() % 3 == 0)
                       std::this_thread::sleep_for(std::chrono::microseconds(random() % 2000));
                   };
                   Comm& comm = current_comm();
                   const Tensor total = Tensor::zeros({64}, DType::f64);
                   for (int k = 0; k < 40; ++k) {
                     const Tensor partial = Tensor::from(
                         wild_numbers<double>(256, static_cast<std::uint64_t>(k * 10 + rank.index)),
                         {256});
                     dawdle();
                     const auto a = start_reduce_scatter(comm, k, partial, total, k > 0);
                     const Tensor full = Tensor::empty({256}, DType::f64);
                     dawdle();
                     a.get();
                     dawdle();
                     const auto b = start_all_gather(comm, k, total, full);
                     dawdle();
                     b.get();
                     total.copy_from([&] {  // only after everybody has read it
                       b.wait_readers();
                       return shard_of(full, (rank.index + 1) % 4, 4);
                     }());
                     a.wait_readers();
                   }
                   const std::lock_guard lock(mutex);
                   results[rank.index] = bits_of<double>(total);
                 },
                 {.threads = 1, .executor = GetParam()});
    std::vector<std::uint64_t> all;
    for (const auto& [rank, bits] : results) all.insert(all.end(), bits.begin(), bits.end());
    if (trial == 0) reference = all;
    EXPECT_EQ(all, reference) << "trial " << trial;
  }
}

TEST_P(Sequence, PostedMemoryMayChangeOnceReleased) {
  // Rank 1 reads late; what it reads must be what rank 0 had when it posted.
  launch_ranks(2,
               [&](Rank& rank) {
                 Comm& comm = current_comm();
                 for (int k = 0; k < 10; ++k) {
                   Round round = Round::start(comm, k);
                   if (rank.index == 1) sleep_ms(3);
                   round.operation.wait_readers();
                   round.mine.fill(-1);
                   round.check(k);
                 }
               },
               {.threads = 1, .executor = GetParam()});
}

TEST_P(Sequence, TwoThreadsOfOneRankMayWaitAtOnce) {
  // Rank 0's own thread waits for its reader while its comm thread waits for the next collective:
  // the news for one must not be lost to the other. Rank 1 finishes the first 60 ms late, and posts
  // the second 60 ms after that.
  const double seconds = seconds_of([&] {
    launch_ranks(2,
                 [&](Rank& rank) {
                   Comm& comm = current_comm();
                   const Tensor mine = Tensor::full({64}, rank.index);
                   Posting posting{.op = "slow", .count = 64};
                   posting.data = static_cast<const char*>(mine.raw_data());
                   posting.bytes = mine.bytes();
                   const auto slow = comm.start(posting, kCpu, mine.storage(), "slow", mine.bytes(),
                                                [&](Operation& operation) {
                                                  if (rank.index == 1) sleep_ms(60);
                                                  comm.view(operation, 1 - rank.index);
                                                });
                   if (rank.index == 1) {
                     slow->wait();
                     sleep_ms(60);
                   }
                   const Round next = Round::start(comm, 1);
                   slow->wait_readers();
                   next.operation.get();
                   next.check(1);
                   comm.quiesce();
                 },
                 {.threads = 1, .deadline = milliseconds(5'000), .executor = GetParam()});
  });
  EXPECT_LT(seconds, 2);
}

INSTANTIATE_TEST_SUITE_P(All, Sequence, testing::ValuesIn(kExecutors),
                         [](const auto& info) { return name_of(info.param); });

// ---- ranks that run different programs

struct Mismatch {
  const char* name;
  std::function<void(Comm&)> zero, one;
  const char *in_zero, *in_one;
};

void gather(Comm& comm, int unit, DType dtype, std::int64_t count) {
  const Tensor mine = Tensor::zeros({count}, dtype),
               full = Tensor::zeros({count * comm.size()}, dtype);
  start_all_gather(comm, unit, mine, full).get();
}
void scatter(Comm& comm, int unit, std::int64_t count) {
  const Tensor partial = Tensor::zeros({count * comm.size()}), out = Tensor::zeros({count});
  start_reduce_scatter(comm, unit, partial, out, false).get();
}

TEST(Diverged, BothSidesAreNamedOnBothRanks) {
  const Mismatch cases[] = {
      {"op", [](Comm& c) { gather(c, 4, DType::f32, 64); }, [](Comm& c) { scatter(c, 4, 64); },
       "all_gather of unit 4 (64 x f32, collective 1)",
       "reduce_scatter of unit 4 (64 x f32, collective 1)"},
      {"count", [](Comm& c) { gather(c, 4, DType::f32, 64); },
       [](Comm& c) { gather(c, 4, DType::f32, 128); },
       "all_gather of unit 4 (64 x f32, collective 1)",
       "all_gather of unit 4 (128 x f32, collective 1)"},
      {"dtype", [](Comm& c) { gather(c, 4, DType::f32, 64); },
       [](Comm& c) { gather(c, 4, DType::f64, 64); },
       "all_gather of unit 4 (64 x f32, collective 1)",
       "all_gather of unit 4 (64 x f64, collective 1)"},
      {"unit", [](Comm& c) { gather(c, 4, DType::f32, 64); },
       [](Comm& c) { gather(c, 7, DType::f32, 64); },
       "all_gather of unit 4 (64 x f32, collective 1)",
       "all_gather of unit 7 (64 x f32, collective 1)"},
      {"words", [](Comm& c) { exchange(c, "control", std::vector<std::uint64_t>(2)); },
       [](Comm& c) { exchange(c, "control", std::vector<std::uint64_t>(3)); },
       "exchange (2 x i64, collective 1)", "exchange (3 x i64, collective 1)"},
  };
  for (const Executor executor : kExecutors) {
    for (const Mismatch& m : cases) {
      SCOPED_TRACE(fmt::format("{}, {}", m.name, name_of(executor)));
      LooseGroup group(2, executor);
      const auto errors = group.run([&](Comm& comm) {
        exchange(comm, "control", {});
        (comm.rank() == 0 ? m.zero : m.one)(comm);
      });
      for (int r = 0; r < 2; ++r) {
        const std::string& text = errors[static_cast<std::size_t>(r)];
        EXPECT_HAS(text, m.in_zero);
        EXPECT_HAS(text, m.in_one);
        EXPECT_HAS(text, fmt::format("rank {} is in", r));
        EXPECT_HAS(text, "all ranks must run the same program");
      }
    }
  }
}

// ---- ranks that fail or are late

class Failure : public testing::TestWithParam<Executor> {};

TEST_P(Failure, TheOthersStopSoonAndTheFirstCauseIsNamed) {
  for (const int culprit : {0, 2, 3}) {
    std::atomic<int> stopped{0};
    std::string others;
    std::mutex mutex;
    std::string text;
    const double seconds = seconds_of([&] {
      text = error_of([&] {
        launch_ranks(4,
                     [&](Rank& rank) {
                       try {
                         for (std::uint64_t k = 0;; ++k) {
                           exchange(current_comm(), "control", {&k, 1});
                           if (rank.index == culprit && k == 50) fail("[test] the disk is full");
                         }
                       } catch (const Error& e) {
                         ++stopped;
                         if (rank.index != culprit) {
                           const std::lock_guard lock(mutex);
                           others = e.what();
                         }
                         throw;
                       }
                     },
                     {.threads = 1, .executor = GetParam()});
      });
    });
    EXPECT_EQ(text, fmt::format("[rank {}] [test] the disk is full", culprit));
    EXPECT_HAS(others,
               fmt::format("stopped because another rank failed: rank {}: [test] the disk is full",
                           culprit));
    EXPECT_EQ(stopped, 4);
    EXPECT_LT(seconds, 2);
  }
}

TEST_P(Failure, ExceptionsOfAnyTypeStopTheOthers) {
  for (const int kind : {0, 1}) {
    const auto run = [&] {
      launch_ranks(3,
                   [&](Rank& rank) {
                     if (rank.index == 1) {
                       if (kind == 0) throw std::out_of_range("no such sample");
                       throw 42;
                     }
                     exchange(current_comm(), "control", {});
                   },
                   {.threads = 1, .executor = GetParam()});
    };
    if (kind == 0) {
      EXPECT_EQ(error_of(run), "[rank 1] no such sample");
    } else {
      EXPECT_THROW(run(), int);
    }
  }
}

TEST_P(Failure, AnErrorInsideACollectiveReachesTheCaller) {
  // In a comm thread it must not end the process.
  const std::string text = error_of([&] {
    launch_ranks(2,
                 [&](Rank& rank) {
                   const auto operation = current_comm().start({.op = "odd"}, kCpu, nullptr, "odd",
                                                               0, [&](Operation&) {
                                                                 if (rank.index == 0)
                                                                   fail("[test] odd data");
                                                               });
                   sleep_ms(5);
                   operation->wait();
                   if (rank.index == 1) exchange(current_comm(), "control", {});
                 },
                 {.threads = 1, .executor = GetParam()});
  });
  EXPECT_EQ(text, "[rank 0] [test] odd data");
}

TEST_P(Failure, DeadlineNamesWhomItWaitedForAndWhereTheOthersAre) {
  LooseGroup group(3, GetParam(), milliseconds(200));
  const double seconds = seconds_of([&] {
    const auto errors = group.run([&](Comm& comm) {
      exchange(comm, "control", {});
      if (comm.rank() == 2) {
        sleep_ms(500);  // late
        return;
      }
      if (comm.rank() == 1) sleep_ms(100);  // still waiting when rank 0 gives up
      gather(comm, 6, DType::f32, 64);
    });
    EXPECT_HAS(errors[0], "[all_gather] rank 0 waited 200 ms for rank ");
    EXPECT_HAS(errors[0], "in collective 1");
    EXPECT_HAS(errors[1], "waited 200 ms for rank 2 in collective 1");
    EXPECT_HAS(errors[0] + errors[1], "rank 2 is in no collective");
    EXPECT_HAS(errors[0], "every rank must run the same steps");
    EXPECT_EQ(errors[2], "");
  });
  EXPECT_LT(seconds, 2);
}

TEST_P(Failure, DeadlineOfALaunchStopsAllRanks) {
  std::string text;
  const double seconds = seconds_of([&] {
    text = error_of([&] {
      launch_ranks(3,
                   [&](Rank& rank) {
                     if (rank.index == 1) sleep_ms(800);
                     exchange(current_comm(), "control", {});
                   },
                   {.threads = 1, .deadline = milliseconds(200), .executor = GetParam()});
    });
  });
  EXPECT_HAS(text, "waited 200 ms for rank 1 in collective 0");
  EXPECT_LT(seconds, 2);
}

TEST_P(Failure, ARankThatEndedIsNotWaitedFor) {
  // The deadline is ten minutes: that nobody comes any more is known at once.
  std::string text;
  const double seconds = seconds_of([&] {
    text = error_of([&] {
      launch_ranks(3,
                   [&](Rank& rank) {
                     exchange(current_comm(), "control", {});
                     if (rank.index == 1) return;
                     gather(current_comm(), 2, DType::f32, 64);
                   },
                   {.threads = 1, .executor = GetParam()});
    });
  });
  EXPECT_HAS(text, "[all_gather] rank ");
  EXPECT_HAS(text, "waits for rank 1 in collective 1, but rank 1 has ended");
  EXPECT_LT(seconds, 2);
}

TEST_P(Failure, ARankThatEndsWithUnfinishedCollectivesHoldsUpNobody) {
  // Started, never waited for, and posted from memory that is long gone when the others read it.
  const double seconds = seconds_of([&] {
    launch_ranks(3,
                 [&](Rank& rank) {
                   Round round = Round::start(current_comm(), 0);
                   if (rank.index == 1) return;
                   sleep_ms(30);
                   round.operation.get();
                   round.check(0);
                 },
                 {.threads = 1, .executor = GetParam()});
  });
  EXPECT_LT(seconds, 2);
}

TEST_P(Failure, WhatAFailedRankPostedStaysReadable) {
  // Rank 0 fails and leaves while rank 1 has not yet read what it posted. Address sanitizer
  // watches.
  LooseGroup group(2, GetParam());
  const auto errors = group.run([&](Comm& comm) {
    Ready<Tensor> operation;
    const Tensor total = Tensor::zeros({64});
    {
      const Tensor partial = Tensor::full({128}, 1 + comm.rank());
      operation = start_reduce_scatter(comm, 0, partial, total, false);
      if (comm.rank() == 0) fail("[test] gone");
    }
    const Tensor other = Tensor::full({128}, 77);  // would take the memory of what was posted
    sleep_ms(50);
    operation.get();
    EXPECT_EQ(total.to_doubles()[5], 3);
  });
  EXPECT_EQ(errors, (std::vector<std::string>{"[test] gone", ""}));
}

INSTANTIATE_TEST_SUITE_P(All, Failure, testing::ValuesIn(kExecutors),
                         [](const auto& info) { return name_of(info.param); });

// ---- launching

TEST(Launch, RefusesNoRanksAndNegativeThreads) {
  EXPECT_EQ(error_of([] { launch_ranks(0, [](Rank&) {}); }),
            "[launch] needs at least 1 rank, got 0");
  EXPECT_EQ(error_of([] { launch_ranks(-3, [](Rank&) {}); }),
            "[launch] needs at least 1 rank, got -3");
  EXPECT_HAS(error_of([] { launch_ranks(1, [](Rank&) {}, {.threads = -1}); }),
             "[launch] threads a rank");
}

TEST(Launch, GivesEveryRankItsContext) {
  std::mutex mutex;
  std::vector<int> seen;
  launch_ranks(4,
               [&](Rank& rank) {
                 EXPECT_EQ(&rank, &current_rank());
                 EXPECT_EQ(rank.world_size, 4);
                 EXPECT_EQ(rank.threads, 3);
                 EXPECT_EQ(rank.seed, 17u);
                 EXPECT_EQ(current_comm().rank(), rank.index);
                 EXPECT_EQ(current_comm().size(), 4);
                 const std::lock_guard lock(mutex);
                 seen.push_back(rank.index);
               },
               {.threads = 3, .seed = 17});
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(seen, (std::vector<int>{0, 1, 2, 3}));
}

TEST(Launch, OutsideOfOneThereIsAGroupOfOne) {
  EXPECT_EQ(current_comm().size(), 1);
  const std::uint64_t word = 5;
  EXPECT_EQ(exchange(current_comm(), "control", {&word, 1}), std::vector<std::uint64_t>{5});
}

TEST(Launch, TwoGroupsRunInOneProcess) {
  // Each from a thread of its own, with different numbers of ranks, at the same time.
  const auto train = [](int ranks, int rounds) {
    launch_ranks(
        ranks,
        [&](Rank& rank) {
          for (int k = 0; k < rounds; ++k) {
            const std::uint64_t mine = static_cast<std::uint64_t>(rank.index + k);
            std::uint64_t sum = 0;
            for (const std::uint64_t word : exchange(current_comm(), "control", {&mine, 1}))
              sum += word;
            ASSERT_EQ(sum, static_cast<std::uint64_t>(ranks * (ranks - 1) / 2 + ranks * k));
          }
        },
        {.threads = 1});
  };
  std::thread other([&] { train(3, 300); });
  train(2, 300);
  other.join();
}

TEST(Launch, GroupsNest) {
  // A rank launches a group of its own and is itself again afterwards; groups within groups are
  // handed in.
  launch_ranks(2,
               [&](Rank& outer) {
                 std::atomic<int> inner{0};
                 launch_ranks(2,
                              [&](Rank& rank) {
                                EXPECT_EQ(current_comm().size(), 2);
                                exchange(current_comm(), "control", {});
                                inner += 1 + rank.index;
                              },
                              {.threads = 1});
                 EXPECT_EQ(inner, 3);
                 EXPECT_EQ(&outer, &current_rank());
                 EXPECT_EQ(current_comm().rank(), outer.index);
                 exchange(current_comm(), "control", {});
               },
               {.threads = 1});
}

TEST(Launch, ARankMayBelongToTwoGroups) {
  // Rows and columns of a 2 x 2 grid, each with a board of its own.
  ThreadWorld rows[2] = {{2, {}}, {2, {}}}, columns[2] = {{2, {}}, {2, {}}};
  launch_ranks(4,
               [&](Rank& rank) {
                 const int row = rank.index / 2, column = rank.index % 2;
                 Comm in_row(rows[row].transport(column), Executor::inlined);
                 Comm in_column(columns[column].transport(row), Executor::inlined);
                 for (int k = 0; k < 50; ++k) {
                   const auto mine = static_cast<std::uint64_t>(rank.index);
                   const auto n = static_cast<std::uint64_t>(2 * row);
                   EXPECT_EQ(exchange(in_row, "control", {&mine, 1}),
                             (std::vector<std::uint64_t>{n, n + 1}));
                   const auto c = static_cast<std::uint64_t>(column);
                   EXPECT_EQ(exchange(in_column, "control", {&mine, 1}),
                             (std::vector<std::uint64_t>{c, c + 2}));
                 }
                 in_row.quiesce();
                 in_column.quiesce();
               },
               {.threads = 1});
}

}  // namespace
}  // namespace sg::dist
