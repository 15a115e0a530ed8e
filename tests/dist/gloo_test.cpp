// Ranks over Gloo: each here is a thread with a store connection and a transport of its own, as a
// process has. tests/cli runs real processes.
#include <gtest/gtest.h>

#include "tests/dist/support.h"

#if SG_GLOO

#include <netinet/in.h>
#include <sched.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <memory>

#include "dist/arrows.h"
#include "dist/engine.h"
#include "dist/processes/gloo.h"
#include "dist/processes/store_server.h"
#include "nn/nn.h"
#include "optim/adam.h"

namespace sg::dist {
namespace {

/// What a rank has of a group of processes.
struct GlooMember {
  GlooMember(int port, int rank, int size, Executor executor, milliseconds deadline)
      : store("127.0.0.1", port, {"secret", rank, size, "job", "same"}, milliseconds(20'000)) {
    store.wait_all_joined(milliseconds(20'000));
    auto own = std::make_unique<GlooTransport>(store, "127.0.0.1", rank, size, deadline);
    transport = own.get();
    comm = std::make_unique<Comm>(std::move(own), executor);
  }
  ~GlooMember() {
    comm->stop();
    transport->close();
  }
  StoreClient store;
  GlooTransport* transport;
  std::unique_ptr<Comm> comm;
};

/// Runs fn on every rank; what it throws is in the result, "" for nothing. Nobody is told of it
/// unless fn does so.
std::vector<std::string> on_gloo(int ranks, const std::function<void(GlooMember&)>& fn,
                                 Executor executor = Executor::inlined,
                                 milliseconds deadline = milliseconds(20'000)) {
  StoreServer server({"secret", 0, ranks, "job", "same"}, {.say = [](const std::string&) {}});
  std::vector<std::string> errors(static_cast<std::size_t>(ranks));
  std::vector<std::unique_ptr<Rank>> contexts;
  for (int r = 0; r < ranks; ++r) contexts.push_back(std::make_unique<Rank>(r, ranks, 1, 3));
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r)
    threads.emplace_back([&, r] {
      const RankScope rank(*contexts[static_cast<std::size_t>(r)]);
      try {
        GlooMember member(server.port(), r, ranks, executor, deadline);
        const CommScope comm(*member.comm);
        try {
          fn(member);
          member.comm->quiesce();
          member.comm->leave();
          // Nobody's connections end while others still read.
          for (int p = 0; p < ranks; ++p)
            while (p != r && !member.store.left(p) && !member.store.failure()) sleep_ms(1);
        } catch (const std::exception& e) {
          errors[static_cast<std::size_t>(r)] = e.what();
          // As a process would, it stays until the others have seen it for themselves.
          sleep_ms(100);
        }
      } catch (const std::exception& e) {
        errors[static_cast<std::size_t>(r)] = e.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
  return errors;
}

const std::vector<std::string> kNoErrors2(2), kNoErrors3(3), kNoErrors4(4);

class Gloo : public testing::TestWithParam<Executor> {};
INSTANTIATE_TEST_SUITE_P(All, Gloo, testing::ValuesIn(kExecutors),
                         [](const auto& info) { return name_of(info.param); });

TEST_P(Gloo, CollectivesHaveTheBitsOfThreads) {
  // Nothing at all, sizes around what travels with a header (128 KB), and some pieces (the last: of
  // 1 MB).
  constexpr int kRanks = 3;
  for (const std::int64_t shard : {0, 1, 105, 32'767, 32'768, 32'769, 525'001}) {
    SCOPED_TRACE(shard);
    const auto body = [&](Comm& comm) {
      const std::size_t n = static_cast<std::size_t>(kRanks * shard);
      const auto numbers = wild_numbers<float>(n, static_cast<std::uint64_t>(comm.rank()));
      const Tensor partial = Tensor::empty({kRanks * shard}), sum = Tensor::zeros({shard});
      std::copy(numbers.begin(), numbers.end(), partial.data<float>());
      const Tensor full = Tensor::empty({kRanks * shard});
      start_reduce_scatter(comm, 0, partial, sum, false).wait_readers();
      start_reduce_scatter(comm, 0, partial, sum, true).wait_readers();
      start_all_gather(comm, 1, sum, full).wait_readers();
      const std::uint64_t mine[] = {static_cast<std::uint64_t>(comm.rank()), 7};
      auto bits = bits_of<float>(full);
      for (const std::uint64_t word : exchange(comm, "control", mine))
        bits.push_back(static_cast<std::uint32_t>(word));
      return bits;
    };
    std::array<std::vector<std::uint32_t>, kRanks> gloo, threads;
    EXPECT_EQ(
        on_gloo(
            kRanks,
            [&](GlooMember& m) { gloo[static_cast<std::size_t>(m.comm->rank())] = body(*m.comm); },
            GetParam()),
        kNoErrors3);
    launch_ranks(
        kRanks,
        [&](Rank& rank) { threads[static_cast<std::size_t>(rank.index)] = body(current_comm()); },
        {.threads = 1});
    EXPECT_EQ(gloo, threads);
  }
}

TEST(GlooMemory, IsThatOfTheCollectivesThatOverlap) {
  // As zero3 gathers: waited for one after another, and released at the end of a step.
  EXPECT_EQ(on_gloo(2,
                    [&](GlooMember& member) {
                      const Tensor mine = Tensor::zeros({100'000});
                      std::int64_t first = 0;
                      for (int k = 0; k < 20; ++k) {
                        start_all_gather(*member.comm, k, mine, Tensor::zeros({200'000})).get();
                        const std::int64_t live = current_rank().ledger().live(Kind::buffers);
                        if (k == 0) first = live;
                        EXPECT_LE(live, first + 20 * 256) << "headers of what was sent alone";
                      }
                      EXPECT_EQ(member.comm->unreleased(), 20u);
                    }),
            kNoErrors2);
}

// A thread of Gloo's that preempted who holds a lock of its would ask for it until its slice ends.
TEST(GlooThreads, PreemptNobody) {
  const auto batch_threads = [] {
    int count = 0;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task"))
      count += sched_getscheduler(std::stoi(task.path().filename())) == SCHED_BATCH;
    return count;
  };
  if (sched_getscheduler(0) != SCHED_OTHER) GTEST_SKIP() << "the tests run under another policy";
  ASSERT_EQ(batch_threads(), 0);
  EXPECT_EQ(on_gloo(2,
                    [&](GlooMember& member) {
                      exchange(*member.comm, "control", {});
                      EXPECT_EQ(batch_threads(), 2) << "each rank has one";
                      exchange(*member.comm, "control", {});
                    }),
            kNoErrors2);
}

std::vector<std::uint64_t> train(const std::string& plan, int accumulate) {
  Rank& rank = current_rank();
  const auto net = nn::share(nn::sequential(nn::Linear(40, 90), nn::ReLU(), nn::Linear(90, 7)));
  const auto engine =
      initialize(net, optim::adam({.lr = 0.01}),
                 {.plan = plan, .accumulate = accumulate, .clip_norm = 0.5, .unit_elements = 100});
  std::vector<double> curve;
  for (int step = 0; step < 3; ++step) {
    for (int a = 0; a < accumulate; ++a) {
      const auto x = wild_numbers<float>(
          80, static_cast<std::uint64_t>((step * accumulate + a) * rank.world_size + rank.index));
      const Tensor input = Tensor::empty({2, 40});
      for (std::size_t i = 0; i < x.size(); ++i) input.data<float>()[i] = std::tanh(x[i]);
      engine->backward(mean(square((*engine)(input))));
    }
    engine->step();
    curve.push_back(engine->loss());
    curve.push_back(*engine->grad_norm());
  }
  EXPECT_TRUE(engine->report().matches()) << engine->report().text();
  for (const double v : engine->full_parameter("0.weight").to_doubles()) curve.push_back(v);
  return bits_of(curve);
}

TEST_P(Gloo, EveryPlanTrainsWithTheBitsAndTheLedgerOfThreads) {
  for (const int ranks : {2, 3})
    for (const char* plan : {"ddp", "zero1", "zero2", "zero3"})
      for (const int accumulate : {1, 2}) {
        SCOPED_TRACE(fmt::format("{} on {}, {}", plan, ranks, accumulate));
        std::vector<std::uint64_t> gloo, threads;
        const auto errors = on_gloo(
            ranks,
            [&](GlooMember& m) {
              auto bits = train(plan, accumulate);
              if (m.comm->rank() == 0) gloo = std::move(bits);
            },
            GetParam());
        EXPECT_EQ(errors, std::vector<std::string>(static_cast<std::size_t>(ranks)));
        launch_ranks(ranks,
                     [&](Rank& rank) {
                       auto bits = train(plan, accumulate);
                       if (rank.index == 0) threads = std::move(bits);
                     },
                     {.threads = 1, .seed = 3});
        EXPECT_EQ(gloo, threads);
      }
}

TEST_P(Gloo, ScratchIsBookedAndUsedAgain) {
  EXPECT_EQ(on_gloo(
                2,
                [](GlooMember& m) {
                  const Tensor partial = Tensor::zeros({200'000}), sum = Tensor::zeros({100'000});
                  const Ledger& ledger = current_rank().ledger();
                  start_reduce_scatter(*m.comm, 0, partial, sum, false).wait_readers();
                  // Places for messages: what this collective received is kept for reuse, what the
                  // next receives is awaited. And a shard's pieces.
                  const std::int64_t one = 2 * (128 + (128 << 10)) + 400'000;
                  EXPECT_EQ(ledger.live(Kind::buffers), one);
                  const auto ready = start_reduce_scatter(*m.comm, 0, partial, sum, false);
                  EXPECT_EQ(ledger.live(Kind::buffers), one + 128) << "a header";
                  if (m.comm->executor() == Executor::thread)
                    return;  // it may be used again already
                  const auto more = start_reduce_scatter(*m.comm, 0, partial, sum, false);
                  EXPECT_EQ(ledger.live(Kind::buffers), 2 * one - (128 + (128 << 10)) + 2 * 128);
                  more.wait_readers();
                  ready.wait_readers();
                  EXPECT_EQ(ledger.live(Kind::buffers), 2 * one - (128 + (128 << 10)));
                },
                GetParam()),
            kNoErrors2);
}

TEST_P(Gloo, ThousandsOfCollectivesDoNotGrow) {
  EXPECT_EQ(on_gloo(
                2,
                [](GlooMember& m) {
                  for (std::uint64_t i = 0; i < 2000; ++i) {
                    const std::uint64_t mine[] = {i};
                    const auto all = exchange(*m.comm, "control", mine);
                    ASSERT_EQ(all[0], i);
                    ASSERT_EQ(all[1], i);
                  }
                  EXPECT_LE(m.comm->unreleased(), Transport::kDepth);
                },
                GetParam()),
            kNoErrors2);
}

TEST_P(Gloo, DivergedRanksNameBothSides) {
  const auto errors = on_gloo(
      2,
      [](GlooMember& m) {
        const Tensor shard = Tensor::zeros({64}), full = Tensor::zeros({128});
        if (m.comm->rank() == 0)
          start_all_gather(*m.comm, 3, shard, full).get();
        else
          start_reduce_scatter(*m.comm, 1, full, shard, false).get();
      },
      GetParam());
  EXPECT_HAS(errors[0],
             "rank 0 is in all_gather of unit 3 (64 x f32, collective 0), rank 1 in reduce_scatter "
             "of unit 1 (64 x f32, collective 0)");
  EXPECT_HAS(errors[1],
             "rank 1 is in reduce_scatter of unit 1 (64 x f32, collective 0), rank 0 in all_gather "
             "of unit 3 (64 x f32, collective 0)");
}

TEST_P(Gloo, OtherCountsAndTypesNameBothSides) {
  for (const bool count : {true, false}) {
    const auto errors = on_gloo(
        2,
        [&](GlooMember& m) {
          const std::int64_t n = count && m.comm->rank() == 1 ? 65 : 64;
          const DType dtype = !count && m.comm->rank() == 1 ? DType::f64 : DType::f32;
          const Tensor shard = Tensor::zeros({n}, dtype), full = Tensor::zeros({2 * n}, dtype);
          start_all_gather(*m.comm, 3, shard, full).get();
        },
        GetParam());
    for (const std::string& text : errors) {
      EXPECT_HAS(text, "64 x f32");
      EXPECT_HAS(text, count ? "65 x f32" : "64 x f64");
    }
  }
}

// Two collectives, in the second of which rank 2 does something else.
std::vector<std::string> with_rank2(const std::function<void(GlooMember&)>& fault,
                                    Executor executor,
                                    milliseconds deadline = milliseconds(20'000)) {
  return on_gloo(
      3,
      [&](GlooMember& m) {
        const Tensor shard = Tensor::zeros({50'000}), full = Tensor::zeros({150'000});
        start_all_gather(*m.comm, 0, shard, full).wait_readers();
        if (m.comm->rank() == 2) return fault(m);
        start_reduce_scatter(*m.comm, 1, full, shard, false).get();
      },
      executor, deadline);
}

TEST_P(Gloo, AFailureReachesTheOthersWithItsCause) {
  std::vector<std::string> errors;
  EXPECT_LT(seconds_of([&] {
              errors = with_rank2(
                  [](GlooMember& m) {
                    sleep_ms(50);  // the others have entered
                    m.comm->poison("the disk is full");
                    fail("the disk is full");
                  },
                  GetParam());
            }),
            2.0);
  for (const int r : {0, 1})
    EXPECT_HAS(errors[static_cast<std::size_t>(r)],
               fmt::format("[reduce_scatter] rank {} stopped in reduce_scatter of unit 1 (50000 x "
                           "f32, collective 1) "
                           "because another rank failed: rank 2: the disk is full",
                           r));
}

TEST_P(Gloo, ALostRankIsNamedWithTheCollective) {
  std::vector<std::string> errors;
  EXPECT_LT(seconds_of([&] {
              // Its end without a word: as a process that was killed.
              errors = with_rank2([](GlooMember&) { fail("killed"); }, GetParam());
            }),
            2.5);
  for (const int r : {0, 1})
    EXPECT_HAS(
        errors[static_cast<std::size_t>(r)],
        fmt::format("[reduce_scatter] rank 2 lost in reduce_scatter of unit 1 (50000 x f32, "
                    "collective 1), where rank {} is; rank 2 last entered all_gather of unit "
                    "0 (50000 x f32, collective 0): ",
                    r));
}

TEST_P(Gloo, AFailingRankEndsItsOwnCollectives) {
  // Rank 0 waits for rank 1, on its comm thread if it has one, and fails beside that.
  const auto errors = on_gloo(
      2,
      [](GlooMember& m) {
        if (m.comm->rank() == 1) {
          while (!m.store.failure()) sleep_ms(1);
          return;
        }
        const Tensor shard = Tensor::zeros({50'000}), full = Tensor::zeros({100'000});
        const auto ready = start_all_gather(*m.comm, 0, shard, full);
        sleep_ms(30);
        m.comm->poison("the disk is full");
        EXPECT_LT(seconds_of([&] { m.comm->stop(); }), 5);
        ready.get();
      },
      GetParam());
  EXPECT_EQ(
      errors[0],
      "[all_gather] rank 0 stopped in all_gather of unit 0 (50000 x f32, collective 0) because "
      "it failed itself: the disk is full");
}

TEST_P(Gloo, AReaderThatLeftIsNotWaitedFor) {
  const auto errors = on_gloo(
      2,
      [](GlooMember& m) {
        if (m.comm->rank() == 1) return;  // it leaves
        const Tensor data = Tensor::zeros({300'000});
        const Posting posting{.op = "all_gather",
                              .count = 300'000,
                              .data = static_cast<const char*>(data.raw_data()),
                              .bytes = 1'200'000};
        m.transport->post(posting);
        m.transport->wait_released(posting, nullptr);
      },
      GetParam(), milliseconds(4'000));
  EXPECT_HAS(errors[0],
             "[all_gather] rank 0 waits for rank 1 in collective 0, but rank 1 has ended");
}

TEST(GlooConnect, ARankThatDiesMeanwhileIsNamedAtOnce) {
  StoreServer server({"secret", 0, 3, "job", "same"}, {.say = [](const std::string&) {}});
  const auto join = [&](int rank) {
    return std::make_unique<StoreClient>("127.0.0.1", server.port(),
                                         JobIdentity{"secret", rank, 3, "job", "same"},
                                         milliseconds(20'000));
  };
  std::string errors[2];
  std::vector<std::thread> threads;
  for (int r : {0, 1})
    threads.emplace_back([&, r] {
      const auto store = join(r);
      errors[r] = error_of([&] { GlooTransport(*store, "127.0.0.1", r, 3, milliseconds(20'000)); });
    });
  const double seconds = seconds_of([&] {
    {
      auto store = join(2);
      store->wait_all_joined(milliseconds(20'000));
      const std::vector<char> form = store->get("gloo/0", milliseconds(20'000));
      // Addresses to which both wait for a connection, as the greater one connects: Gloo's is a
      // sockaddr and a number. None comes.
      std::vector<char> mine = form;
      for (const std::size_t at : {std::size_t{0}, form.size() / 2})
        std::memset(mine.data() + at + offsetof(sockaddr_in, sin_port), 0xff, 2);
      store->set("gloo/2", mine);
      sleep_ms(200);
    }
    for (std::thread& thread : threads) thread.join();
  });
  EXPECT_LT(seconds, 5);
  for (const std::string& error : errors) EXPECT_HAS(error, "[connect] rank 2 lost: ");
}

TEST_P(Gloo, ARankThatLeftIsNotWaitedFor) {
  std::vector<std::string> errors;
  EXPECT_LT(seconds_of([&] { errors = with_rank2([](GlooMember&) {}, GetParam()); }), 3.0);
  for (const int r : {0, 1})
    EXPECT_HAS(
        errors[static_cast<std::size_t>(r)],
        fmt::format("[reduce_scatter] rank {} waits for rank 2 in collective 1, but rank 2 has "
                    "ended",
                    r));
}

TEST_P(Gloo, DeadlineNamesWhomItWaitedForAndWhereTheOthersAre) {
  const auto errors = with_rank2([](GlooMember&) { sleep_ms(700); }, GetParam(), milliseconds(300));
  EXPECT_HAS(errors[0],
             "[reduce_scatter] rank 0 waited 300 ms for rank 2 in reduce_scatter of unit 1");
  EXPECT_HAS(errors[0], "rank 1 last entered reduce_scatter of unit 1 (50000 x f32, collective 1)");
  EXPECT_HAS(errors[0], "rank 2 last entered all_gather of unit 0 (50000 x f32, collective 0)");
}

}  // namespace
}  // namespace sg::dist

#else
TEST(Gloo, CollectivesHaveTheBitsOfThreads) { GTEST_SKIP() << "built without Gloo"; }
#endif
