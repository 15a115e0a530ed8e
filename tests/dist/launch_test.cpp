// Ranks as threads: what each gets, and groups beside and within one another.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <mutex>

#include "dist/arrows.h"
#include "tests/dist/support.h"
#include "tests/support/files.h"

namespace sg::dist {
namespace {

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

/// What is said on standard error when rank 1 fails after so many collectives, one of each rank.
std::string said_of_failure(int collectives, const LaunchOptions& options = {}) {
  testing::internal::CaptureStderr();
  std::atomic<int> done = 0;  // a failure would end what others are still in
  EXPECT_EQ(error_of([&] {
              launch_ranks(
                  3,
                  [&](Rank& rank) {
                    const std::uint64_t mine[] = {1};
                    for (int i = 0; i < collectives; ++i) exchange(current_comm(), "test", mine);
                    ++done;
                    if (rank.index != 1) return;
                    while (done < 3) std::this_thread::yield();
                    fail("[test] broken here");
                  },
                  options);
            }),
            "[rank 1] [test] broken here");
  return testing::internal::GetCapturedStderr();
}

std::string exchanges(int first, int end) {
  std::string lines;
  for (int i = first; i < end; ++i) lines += fmt::format("exchange (1 x i64, collective {})\n", i);
  return lines;
}

TEST(Launch, TheLastCollectivesOfFailedRanksAreDumped) {
  const char* const value = std::getenv("SHARDGRAD_LOG_DIR");
  const std::string before = value != nullptr ? value : "";
  const auto folder_is = [](const std::string& folder) {
    ::setenv("SHARDGRAD_LOG_DIR", folder.c_str(), 1);
  };
  const auto all_said = [](const std::string& after_rank) {
    std::string text;
    for (int r = 0; r < 3; ++r) text += fmt::format("rank {}{}", r, after_rank);
    return text;
  };
  ::unsetenv("SHARDGRAD_LOG_DIR");
  const std::string five =
      all_said(": its last collectives (all 256 with SHARDGRAD_LOG_DIR=FOLDER)\n" +
               exchanges(2, 7));
  EXPECT_EQ(said_of_failure(7), five);
  folder_is("");
  EXPECT_EQ(said_of_failure(7), five);
  EXPECT_EQ(said_of_failure(0), "") << "there were none";
  EXPECT_EQ(said_of_failure(7, {.dump_collectives = false}), "");

  const test::TemporaryFolder folder;
  const auto file = [&](int rank) { return folder / fmt::format("collectives.rank{}.txt", rank); };
  folder_is(folder.string());
  EXPECT_EQ(said_of_failure(300, {.dump_collectives = false}), "");
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  const std::string said = said_of_failure(300);
  std::string expected;
  for (int r = 0; r < 3; ++r) {
    expected += fmt::format("rank {}: its last collectives are in {}\n", r, file(r));
    EXPECT_EQ(test::read_file(file(r)), exchanges(44, 300));
  }
  EXPECT_EQ(said, expected);

  // Where they cannot be written they are not lost.
  folder_is(folder / "missing");
  expected.clear();
  for (int r = 0; r < 3; ++r)
    expected += fmt::format(
        "rank {}: its last collectives (cannot write {}/missing/collectives.rank{}.txt: No such "
        "file or directory)\n{}",
        r, folder.string(), r, exchanges(2, 7));
  EXPECT_EQ(said_of_failure(7), expected);
  if (value != nullptr)
    folder_is(before);
  else
    ::unsetenv("SHARDGRAD_LOG_DIR");
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

TEST(Launch, ACommThreadNeedsACoreToSpare) {
  EXPECT_EQ(default_executor(2, 1, 4), Executor::thread);
  EXPECT_EQ(default_executor(2, 1, 3), Executor::inlined);
  EXPECT_EQ(default_executor(4, 3, 16), Executor::thread);
  EXPECT_EQ(default_executor(4, 3, 15), Executor::inlined);
  EXPECT_EQ(default_executor(1, 1, 64), Executor::inlined) << "there is nobody to talk to";
}

TEST(Launch, WaitsSpinOnlyWhereEveryThreadHasACore) {
  using std::chrono::microseconds;
  EXPECT_GT(default_spin(2, 1, Executor::inlined, 2), microseconds(0));
  EXPECT_EQ(default_spin(2, 1, Executor::inlined, 1), microseconds(0));
  EXPECT_EQ(default_spin(2, 1, Executor::thread, 3), microseconds(0));
  EXPECT_GT(default_spin(2, 1, Executor::thread, 4), microseconds(0));
  EXPECT_EQ(default_spin(4, 2, Executor::inlined, 7), microseconds(0));
  EXPECT_GT(default_spin(1, 2, Executor::thread, 2), microseconds(0)) << "a group of one has none";
}

TEST(Launch, ThreadsARankShareTheCores) {
  const int cores = available_cores();
  EXPECT_EQ(default_threads(1), SG_OPENMP ? cores : 1);
  EXPECT_EQ(default_threads(2), SG_OPENMP ? std::max(cores / 2, 1) : 1);
  EXPECT_EQ(default_threads(10'000), 1);
}

}  // namespace
}  // namespace sg::dist
