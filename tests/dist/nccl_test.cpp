// Ranks with a GPU each, connected by NCCL: with the stand-in of tests/fake_cuda, or with as many
// cards as there are.
#include "dist/comm/nccl.h"
#include "core/cuda/cuda.h"
#include "dist/arrows.h"
#include "tests/dist/training.h"
#if SG_GLOO
#include <netinet/in.h>
#include <sys/socket.h>

#include "dist/processes/group.h"
#endif
#if SG_NCCL && SG_STAND_IN
#include <nccl.h>

#include "core/cuda/context.h"
#include "dist/comm/watch.h"
#endif

namespace sg::dist {
namespace {

#define SKIP_WITHOUT_GPUS(n)                                                           \
  if (!current_rank().device.is_cuda()) GTEST_SKIP() << "tensors are on the CPU here"; \
  if (!has_nccl()) GTEST_SKIP() << "this build has no NCCL";                           \
  if (cuda::device_count() < (n))                                                      \
  GTEST_SKIP() << "needs " << (n) << " GPUs, there are " << cuda::device_count()

LaunchOptions with_nccl(bool deterministic = true, milliseconds deadline = milliseconds(20'000)) {
  return {.threads = 1,
          .deadline = deadline,
          .device = cuda_device(0),
          .backend = Backend::nccl,
          .deterministic = deterministic};
}

// ---- training

class NcclBits : public testing::TestWithParam<TestNet> {};
INSTANTIATE_TEST_SUITE_P(All, NcclBits,
                         testing::Values(test_net("mlp"), test_net("convnet"),
                                         test_net("tied_embedding"), test_net("checkpointed"),
                                         test_net("mixed_dtypes")),
                         [](const auto& info) { return info.param.name; });

TEST_P(NcclBits, DeterministicSumsAreThoseOfThreads) {
  SKIP_WITHOUT_GPUS(1);
  for (const int ranks : {1, 2, 4}) {
    if (cuda::device_count() < ranks) break;
    for (const int accumulate : {1, 2}) {
      for (const char* plan : kPlanNames) {
        Training t{.plan = plan, .ranks = ranks, .accumulate = accumulate, .clip_norm = 0.3};
        SCOPED_TRACE(to_string(t));
        const Outcome shared = train(GetParam(), t);
        t.backend = Backend::nccl;
        const Outcome apart = train(GetParam(), t);
        EXPECT_EQ(apart.difference(shared), "");
        for (int r = 0; r < ranks; ++r) {
          const Report& report = apart.reports[static_cast<std::size_t>(r)];
          EXPECT_TRUE(report.matches()) << "rank " << r << "\n" << report.text();
          EXPECT_EQ(report.traffic.size(), shared.reports[0].traffic.size());
        }
      }
    }
  }
}

TEST_P(NcclBits, FastSumsAreClose) {
  SKIP_WITHOUT_GPUS(4);
  for (const char* plan : kPlanNames) {
    // Momentum: Adam's first steps are of equal size whatever the gradient's, and show nothing.
    Training t{.plan = plan, .ranks = 4, .accumulate = 2, .optimizer = "momentum"};
    SCOPED_TRACE(to_string(t));
    const Outcome shared = train(GetParam(), t);
    t.backend = Backend::nccl;
    t.deterministic = false;
    const Outcome apart = train(GetParam(), t);
    expect_close(apart, shared, 1e-3);
    for (const Report& report : apart.reports) EXPECT_TRUE(report.matches()) << report.text();
  }
}

// ---- arrows

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

// ---- failures

constexpr const char* kSecond = "all_gather of unit 1, fc1 (64 x f32, collective 1)";

// Whole values, so the CPU waits for the GPU.
void gather(Comm& comm, const UnitLabel& unit, std::int64_t count = 64) {
  const Tensor mine = Tensor::zeros({count}), full = Tensor::zeros({count * comm.size()});
  start_all_gather(comm, unit, mine, full).get().to_doubles();
}

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
        EXPECT_EQ(error_of([&] { cuda::synchronize(current_rank().device); }), first);
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

// ---- between processes: control by Gloo, GPUs by NCCL

#if SG_GLOO

/// A socket that listens at a free port of this host, as `shardgrad run` hands it in.
std::pair<int, int> listening_socket() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const raw = reinterpret_cast<sockaddr*>(&address);
  if (::bind(fd, raw, size) != 0 || ::listen(fd, 64) != 0 || ::getsockname(fd, raw, &size) != 0)
    ADD_FAILURE() << "no socket";
  return {fd, ntohs(address.sin_port)};
}

/// Runs fn as the ranks of a launcher's processes do, each a thread here; what each throws.
std::vector<std::string> on_processes(int ranks, const std::function<void(Rank&)>& fn,
                                      milliseconds deadline = milliseconds(20'000)) {
  const auto [socket, port] = listening_socket();
  std::vector<std::string> errors(static_cast<std::size_t>(ranks));
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r)
    threads.emplace_back([&, r, fd = socket, at = port] {
      ProcessEnvironment e;
      e.launcher = "a test";
      e.rank = e.local_rank = r;
      e.world_size = e.local_world_size = ranks;
      e.port = at;
      e.job = "job";
      e.token = "secret";
      if (r == 0) e.listening_socket = fd;
      errors[static_cast<std::size_t>(r)] = error_of([&] {
        const LaunchOptions options{.threads = 1,
                                    .seed = 11,
                                    .deadline = deadline,
                                    .device = gpu_of(e, Backend::automatic),
                                    .deterministic = true};
        ProcessGroup group(e, options, "same");
        group.run(fn);
        if (!testing::Test::HasFailure()) group.run(fn);  // as --plan all does
      });
    });
  for (std::thread& thread : threads) thread.join();
  return errors;
}

TEST(NcclProcesses, HaveTheBitsOfThreads) {
  constexpr int kRanks = 3;
  SKIP_WITHOUT_GPUS(kRanks);
  std::vector<std::vector<std::vector<double>>> seen(kRanks);
  const auto body = [&](Rank& rank) {
    EXPECT_TRUE(rank.device.is_cuda());
    const Training t{.plan = "zero3", .ranks = kRanks, .accumulate = 2, .clip_norm = 0.3};
    const TestNet& net = test_net("mlp");
    const auto engine = initialize(make_module(net, t), make_optimizer(t), engine_options(t));
    std::vector<double> losses;
    for (int step = 0; step < 3; ++step) {
      train_step(*engine, net, t, step);
      losses.push_back(engine->loss());
      losses.push_back(engine->grad_norm().value());
    }
    EXPECT_TRUE(engine->report().matches()) << engine->report().text();
    seen[static_cast<std::size_t>(rank.index)].push_back(losses);
  };
  EXPECT_EQ(on_processes(kRanks, body), std::vector<std::string>(kRanks, "no error"));
  launch_ranks(kRanks, body, {.threads = 1, .seed = 11, .device = cuda_device(0)});
  for (const auto& runs : seen) {
    ASSERT_EQ(runs.size(), 3u);
    for (const std::vector<double>& losses : runs) EXPECT_EQ(bits_of(losses), bits_of(seen[0][0]));
  }
}

TEST(NcclProcesses, AFailureEndsTheWaitsOfTheOthersForTheirGpus) {
  constexpr int kRanks = 3;
  SKIP_WITHOUT_GPUS(kRanks);
  const double seconds = seconds_of([&] {
    const std::vector<std::string> errors = on_processes(kRanks, [&](Rank& rank) {
      gather(current_comm(), {0, "fc0"});
      if (rank.index == 1) fail("[test] the disk is full");
      gather(current_comm(), {1, "fc1"});
    });
    EXPECT_EQ(errors[1], "[rank 1] [test] the disk is full");
    for (const int r : {0, 2})
      EXPECT_EQ(errors[static_cast<std::size_t>(r)],
                fmt::format("[rank {}] [all_gather] rank {} stopped in {} because another rank "
                            "failed: rank 1: [test] the disk is full",
                            r, r, kSecond));
  });
  EXPECT_LT(seconds, 8);
}

TEST(NcclProcesses, ARankThatIsLateIsAnErrorOfAll) {
  SKIP_WITHOUT_GPUS(2);
  const std::vector<std::string> errors = on_processes(
      2,
      [&](Rank& rank) {
        exchange(current_comm(), "control", {});
        if (rank.index == 1) sleep_ms(1200);
        gather(current_comm(), {1, "fc1"});
      },
      milliseconds(500));
  const std::string text = fmt::format(
      "[all_gather] rank 0 waited 500 ms for the GPUs of its peers in {}; rank 1 last entered "
      "exchange (0 x i64, collective 0); every rank must run the same steps",
      kSecond);
  EXPECT_EQ(errors[0], "[rank 0] " + text);
  EXPECT_HAS(errors[1], "rank 0: " + text);
}

#endif  // SG_GLOO

// ---- which GPU is whose

TEST(NcclGpus, MoreRanksThanGpusAreRefused) {
  SKIP_WITHOUT_GPUS(1);
  const int gpus = cuda::device_count();
  EXPECT_EQ(error_of([&] {
              launch_ranks(
                  gpus + 1, [](Rank&) {}, with_nccl());
            }),
            fmt::format("[launch] with NCCL each of the {} ranks needs a GPU of its own, and this "
                        "process sees {}; use at most {} ranks, or let all ranks share one GPU "
                        "(backend threads)",
                        gpus + 1, gpus, gpus));
}

TEST(NcclGpus, AProcessTakesTheGpuOfItsLocalRank) {
  SKIP_WITHOUT_GPUS(1);
  const int gpus = cuda::device_count();
  ProcessEnvironment e;
  e.launcher = "torchrun";
  e.rank = gpus + 3;
  e.world_size = 2 * gpus + 2;
  e.local_rank = gpus - 1;
  e.local_world_size = gpus;
  EXPECT_EQ(gpu_of(e, Backend::automatic), cuda_device(gpus - 1));
  EXPECT_HAS(error_of([&] { gpu_of(e, Backend::gloo); }),
             "and the backend gloo carries main memory alone; use auto or nccl");
  const std::string sees = fmt::format(
      "[launch] torchrun started {} processes, {} of them on this host, and process {} sees {} "
      "GPU{}: each needs one of its own, cuda:LOCAL_RANK. Start at most {} a host, let each "
      "process ",
      e.world_size, gpus + 1, e.rank, gpus, gpus == 1 ? "" : "s", gpus);
  e.local_world_size = gpus + 1;
  EXPECT_HAS(error_of([&] { gpu_of(e, Backend::automatic); }), sees);
  e.local_world_size = 1;  // not known by every launcher
  e.local_rank = gpus;
  EXPECT_HAS(error_of([&] { gpu_of(e, Backend::nccl); }), sees);
}

}  // namespace
}  // namespace sg::dist
