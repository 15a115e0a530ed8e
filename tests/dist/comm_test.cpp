// The sequence of collectives over the threads transport: its ring, and delays that change no bit.
#include <atomic>

#include "dist/arrows.h"
#include "tests/dist/support.h"

namespace sg::dist {
namespace {

class Sequence : public testing::TestWithParam<Executor> {};

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

}  // namespace
}  // namespace sg::dist
