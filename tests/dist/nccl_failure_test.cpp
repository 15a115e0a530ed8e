// How waits for GPUs end when something fails.
#include "tests/dist/nccl_support.h"
#include "tests/support/processes.h"
#if SG_NCCL && SG_STAND_IN
#include <nccl.h>

#include "core/cuda/context.h"
#endif

namespace sg::dist {
namespace {

struct Failed {
  std::string launch;              ///< what launch_ranks() throws
  std::vector<std::string> ranks;  ///< and each rank
  double seconds = 0;              ///< until rank 0 has its error
};

Failed run_to_failure(int ranks, const std::function<void(Comm&)>& fn,
                      milliseconds deadline = milliseconds(20'000)) {
  Failed out{.launch = "", .ranks = std::vector<std::string>(static_cast<std::size_t>(ranks))};
  out.launch = error_of([&] {
    launch_ranks(
        ranks,
        [&](Rank& rank) {
          std::string& text = out.ranks[static_cast<std::size_t>(rank.index)];
          const double seconds = seconds_of([&] { text = error_of([&] { fn(current_comm()); }); });
          if (rank.index == 0) out.seconds = seconds;
          if (text != "no error") throw Error(text);
        },
        with_nccl(true, deadline));
  });
  return out;
}

TEST(NcclFailure, ARankThatNeverComesIsNamedAtTheDeadline) {
  SKIP_WITHOUT_GPUS(2);
  const Failed failed = run_to_failure(
      2,
      [&](Comm& comm) {
        gather(comm, {0, "fc0"});
        if (comm.rank() == 0) gather(comm, {1, "fc1"});
        sleep_ms(600);
      },
      milliseconds(200));
  const std::string text = fmt::format(
      "[all_gather] rank 0 waited 200 ms for the GPUs of its peers in {}; rank 1 last entered "
      "all_gather of unit 0, fc0 (64 x f32, collective 0); every rank must run the same steps",
      kSecond);
  EXPECT_EQ(failed.launch, "[rank 0] " + text);
  EXPECT_EQ(failed.ranks[0], text);
  EXPECT_GE(failed.seconds, 0.2);
  EXPECT_LT(failed.seconds, 2);
}

TEST(NcclFailure, TheDeadlineIsNotThatOfTheRanksOwnWork) {
  // Rank 0 comes early and waits long, but never longer than the deadline for one collective.
  SKIP_WITHOUT_GPUS(2);
  const Failed failed = run_to_failure(
      2,
      [&](Comm& comm) {
        for (int k = 0; k < 4; ++k) {
          if (comm.rank() == 1) sleep_ms(200);
          gather(comm, k);
        }
      },
      milliseconds(600));
  EXPECT_EQ(failed.launch, "no error");
}

TEST(NcclFailure, ARankThatFailsEndsTheWaitsOfTheOthers) {
  SKIP_WITHOUT_GPUS(3);
  const Failed failed = run_to_failure(3, [&](Comm& comm) {
    gather(comm, {0, "fc0"});
    if (comm.rank() == 2) {
      sleep_ms(50);
      fail("[test] the disk is full");
    }
    gather(comm, {1, "fc1"});
  });
  EXPECT_EQ(failed.launch, "[rank 2] [test] the disk is full");
  for (const int r : {0, 1})
    EXPECT_EQ(failed.ranks[static_cast<std::size_t>(r)],
              fmt::format("[all_gather] rank {} stopped in {} because another rank failed: rank 2: "
                          "[test] the disk is full",
                          r, kSecond));
  EXPECT_LT(failed.seconds, 2);
}

TEST(NcclFailure, ARankThatEndedIsNamed) {
  SKIP_WITHOUT_GPUS(3);
  const Failed failed = run_to_failure(
      3,
      [&](Comm& comm) {
        gather(comm, {0, "fc0"});
        if (comm.rank() != 1) gather(comm, {1, "fc1"});
      },
      milliseconds(700));
  EXPECT_HAS(failed.launch,
             fmt::format("waits for rank 1 in {}, but rank 1 has ended; every rank must run the "
                         "same steps",
                         kSecond));
  EXPECT_LT(failed.seconds, 5);
}

TEST(NcclFailure, RanksMayEndOneAfterAnother) {
  SKIP_WITHOUT_GPUS(3);
  const Failed failed = run_to_failure(
      3,
      [&](Comm& comm) {
        gather(comm, {0, "fc0"});
        sleep_ms(500 * comm.rank());
      },
      milliseconds(300));
  EXPECT_EQ(failed.launch, "no error");
}

TEST(NcclFailure, TheEndHasADeadlineWhenAllHaveEnded) {
  SKIP_WITHOUT_GPUS(2);
  const Failed failed = run_to_failure(
      2,
      [&](Comm& comm) {
        gather(comm, {0, "fc0"});
        if (comm.rank() == 0) return;
        comm.transport().leave();  // it says so, and its GPU does not come to the end
        sleep_ms(900);
      },
      milliseconds(200));
  EXPECT_EQ(failed.launch,
            "[rank 0] [close] rank 0 waited 200 ms for the GPUs of its peers, all of which have "
            "ended");
}

TEST(NcclFailure, TheEndNamesWhoIsAtWork) {
  SKIP_WITHOUT_GPUS(2);
  const std::string id = nccl_id();
  testing::internal::CaptureStderr();
  const std::string error = error_of([&] {
    launch_ranks(2,
                 [&](Rank& rank) {
                   Comm& comm = current_comm();
                   current_rank().device = cuda_device(rank.index);
                   use_nccl(comm, {.id = id,
                                   .device = rank.device,
                                   .deadline = milliseconds(100),
                                   .one_process = true,
                                   .reminder = milliseconds(200)});
                   gather(comm, {0, "fc0"});
                   if (rank.index == 1) sleep_ms(500);  // longer than the deadline
                 },
                 {.threads = 1, .device = cuda_device(0)});
  });
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(error, "no error");
  const std::string line =
      "[close] rank 0 has ended and waits for rank 1, which is at work (0 s); rank 1 last entered "
      "all_gather of unit 0, fc0 (64 x f32, collective 0)\n";
  EXPECT_TRUE(said == line || said == line + line) << said;
}

TEST(NcclFailure, WhatIsGivenUpStaysSo) {
  SKIP_WITHOUT_GPUS(2);
  const Failed failed = run_to_failure(
      2,
      [&](Comm& comm) {
        const Tensor before = Tensor::full({4}, 1);
        if (comm.rank() == 1) return sleep_ms(600);
        const std::string first = error_of([&] { gather(comm, {1, "fc1"}); });
        EXPECT_HAS(first, "waited 200 ms");
        EXPECT_EQ(error_of([&] { gather(comm, 2); }), first);
        EXPECT_EQ(error_of([&] { comm.quiesce(); }), first);
        EXPECT_EQ(error_of([&] { cuda::synchronize(); }), first);
        EXPECT_EQ(error_of([&] { before.to_doubles(); }), first) << "nothing of it counts";
        EXPECT_HAS(comm.history(),
                   "all_gather of unit 1, fc1 (64 x f32, collective 0), unfinished");
      },
      milliseconds(200));
  EXPECT_HAS(failed.launch, "[rank 0] [all_gather] rank 0 waited 200 ms");
}

TEST(NcclFailure, ARankThatDoesNotConnectIsWaitedForUntilTheDeadline) {
  SKIP_WITHOUT_GPUS(2);
  ThreadWorld world(2, {});
  Comm comm(world.transport(0), Executor::inlined);
  const std::string text = error_of([&] {
    use_nccl(comm, {.id = nccl_id(), .device = cuda_device(0), .deadline = milliseconds(100)});
  });
  EXPECT_EQ(text,
            "[connect] rank 0 waited 100 ms for the GPUs of its peers in connect; rank 1 entered "
            "none; every rank must run the same steps");
  EXPECT_EQ(world.cause(), "rank 0: " + text);
}

TEST(NcclFailure, DifferentProgramsAreFoundByTheNextExchange) {
  // Both gather 64 values, so nothing waits, and the values are not those that are meant.
  SKIP_WITHOUT_GPUS(2);
  const Failed failed = run_to_failure(2, [&](Comm& comm) {
    gather(comm, comm.rank() == 0 ? 4 : 7);
    exchange(comm, "control", {});
  });
  EXPECT_HAS(failed.launch,
             "came to exchange (0 x i64, collective 1) by different collectives between their "
             "GPUs: all ranks must run the same program (SHARDGRAD_DEBUG=1 names the first that "
             "differs)");
}

TEST(NcclFailure, DifferentSizesEndAtTheDeadline) {
  SKIP_WITHOUT_GPUS(2);
  const Failed failed = run_to_failure(
      2, [&](Comm& comm) { gather(comm, 4, comm.rank() == 0 ? 64 : 128); }, milliseconds(200));
  EXPECT_HAS(failed.launch, "waited 200 ms for the GPUs of its peers in all_gather of unit 4");
  EXPECT_HAS(failed.launch, "last entered all_gather of unit 4");
  EXPECT_HAS(failed.launch, "(64 x f32, collective 0)");
  EXPECT_HAS(failed.launch, "(128 x f32, collective 0)");
}

#if SG_NCCL && SG_STAND_IN

TEST(NcclFailure, ARankThatWaitsForNothingLetsGoToo) {
  SKIP_WITHOUT_GPUS(2);
  const int before = cuda::fake::nccl_aborts();
  const Failed failed = run_to_failure(2, [&](Comm& comm) {
    gather(comm, {0, "fc0"});
    if (comm.rank() == 1) fail("[test] the disk is full");
    // This rank's and that of the failed one, whose group ends when all threads have ended.
    EXPECT_TRUE(test::eventually([&] { return cuda::fake::nccl_aborts() == before + 2; }, 5));
    gather(comm, {1, "fc1"});
  });
  EXPECT_EQ(failed.launch, "[rank 1] [test] the disk is full");
  EXPECT_EQ(failed.ranks[0],
            "[nccl] rank 0 stopped because another rank failed: rank 1: [test] the disk is full");
}

TEST(NcclFailure, AnAsynchronousErrorIsNamed) {
  SKIP_WITHOUT_GPUS(2);
  const Failed failed = run_to_failure(2, [&](Comm& comm) {
    gather(comm, {0, "fc0"});
    if (comm.rank() == 1) {
      sleep_ms(50);
      cuda::fake::nccl_fails(0, ncclUnhandledCudaError);
      sleep_ms(300);
    }
    gather(comm, {1, "fc1"});
    gather(comm, {2, "fc2"});  // for which rank 0 has sent nothing
  });
  const std::string text = fmt::format(
      "[all_gather] rank 0 stopped in {}: NCCL: unhandled cuda error (the stand-in's details)",
      kSecond);
  EXPECT_EQ(failed.launch, "[rank 0] " + text);
  EXPECT_EQ(failed.ranks[0], text);
  EXPECT_HAS(failed.ranks[1], "because another rank failed: rank 0: " + text);
  EXPECT_LT(failed.seconds, 2);
}

TEST(NcclFailure, APeerThatIsGoneIsNamedByTheTransport) {
  // NCCL sees that somebody is gone before the word of who it is has come.
  SKIP_WITHOUT_GPUS(2);
  const Failed failed = run_to_failure(2, [&](Comm& comm) {
    gather(comm, {0, "fc0"});
    if (comm.rank() == 1) {
      cuda::fake::nccl_fails(0, ncclRemoteError);
      sleep_ms(300);
      fail("[test] the disk is full");
    }
    gather(comm, {1, "fc1"});
  });
  EXPECT_EQ(failed.launch, "[rank 1] [test] the disk is full");
  EXPECT_HAS(failed.ranks[0], "because another rank failed: rank 1: [test] the disk is full");
}

TEST(NcclFailure, NothingIsThrownBeforeNcclHasLetGoOfTheMemory) {
  SKIP_WITHOUT_GPUS(2);
  const int before = cuda::fake::nccl_aborts();
  run_to_failure(
      2,
      [&](Comm& comm) {
        if (comm.rank() == 1) return sleep_ms(400);
        EXPECT_HAS(error_of([&] { gather(comm, 0); }), "waited 100 ms");
        EXPECT_GT(cuda::fake::nccl_aborts(), before);
      },
      milliseconds(100));
}

TEST(NcclFailure, ARankMayLeaveWhileTheLastWorkOfAnotherEnds) {
  // Rank 1 comes late, gets all it needs and ends; on rank 0, which has waited long, the lane still
  // has something to do.
  SKIP_WITHOUT_GPUS(2);
  const Failed failed = run_to_failure(2, [&](Comm& comm) {
    if (comm.rank() == 1) sleep_ms(1200);
    const Tensor mine = Tensor::zeros({64}), full = Tensor::zeros({128});
    Posting posting{.op = "all_gather", .dtype = mine.dtype(), .count = 64};
    posting.data = static_cast<const char*>(mine.raw_data());
    posting.bytes = mine.bytes();
    comm.start(posting, mine.device(), mine.storage(), "all_gather", mine.bytes(),
               [&comm, full](Operation& operation) {
                 comm.gather(operation, full.raw_data());
                 if (comm.rank() == 0)
                   cuda::fake::enqueue(operation.context()->communication(), [] { sleep_ms(300); });
               });
  });
  EXPECT_EQ(failed.launch, "no error");
}

TEST(NcclFailure, ALostDeviceEndsTheGroup) {
  SKIP_WITHOUT_GPUS(2);
  if (!cuda::fake::threaded()) GTEST_SKIP() << "work runs as it is queued: nobody asks for its end";
  const Failed failed = run_to_failure(2, [&](Comm& comm) {
    if (comm.rank() == 1) {
      sleep_ms(50);
      cuda::fake::fail_queries(true);
      sleep_ms(200);
      return;
    }
    EXPECT_EQ(error_of([&] {
                gather(comm, {1, "fc1"});
              }),
              "[all_gather] rank 0 stopped in all_gather of unit 1, fc1 (64 x f32, collective 0): "
              "cudaEventQuery: invalid device ordinal (cudaError)");
    EXPECT_HAS(comm.history(), "collective 0), unfinished");
  });
  cuda::fake::fail_queries(false);
  EXPECT_HAS(failed.launch, "[rank 0] [all_gather] rank 0 stopped in all_gather of unit 1");
}

TEST(NcclFailure, CallsThatBlockAreRefused) {
  SKIP_WITHOUT_GPUS(1);
  ::setenv("NCCL_COMM_BLOCKING", "1", 1);
  const Failed failed = run_to_failure(1, [](Comm&) {});
  ::unsetenv("NCCL_COMM_BLOCKING");
  EXPECT_EQ(failed.launch,
            "[rank 0] [nccl] NCCL_COMM_BLOCKING=1 makes calls wait for ever for a rank that never "
            "comes; unset it");
}

TEST(NcclFailure, TwoRanksOnOneGpuAreRefused) {
  SKIP_WITHOUT_GPUS(2);
  const std::string id = nccl_id();
  const std::string text = error_of([&] {
    launch_ranks(2,
                 [&](Rank&) {
                   use_nccl(current_comm(),
                            {.id = id, .device = cuda_device(0), .deadline = milliseconds(5'000)});
                 },
                 {.threads = 1, .device = cuda_device(0)});
  });
  EXPECT_HAS(text, "NCCL: invalid usage");
}

TEST(NcclFailure, ErrorsOfTheGpuNameTheLastCollective) {
  SKIP_WITHOUT_GPUS(2);
  const Failed failed = run_to_failure(2, [&](Comm& comm) {
    gather(comm, {0, "fc0"});
    gather(comm, {1, "fc1"});
    if (comm.rank() == 1) cuda::use(cuda_device(99));
  });
  EXPECT_EQ(failed.launch,
            fmt::format("[rank 1] [device] cudaSetDevice on cuda:1, rank 1, after {}: invalid "
                        "device ordinal (cudaError)",
                        kSecond));
}

#endif

}  // namespace
}  // namespace sg::dist
