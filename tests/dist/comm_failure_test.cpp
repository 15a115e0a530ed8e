// Collectives over the threads transport between ranks that run different programs, fail or are
// late: who says what, and when.
#include <atomic>
#include <map>
#include <mutex>

#include "dist/arrows.h"
#include "tests/dist/support.h"

namespace sg::dist {
namespace {

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

}  // namespace
}  // namespace sg::dist
