// Ranks that run different programs, in what the headers of collectives do not show.
#include "dist/fingerprint.h"

#include "dist/arrows.h"
#include "dist/engine.h"
#include "nn/nn.h"
#include "optim/sgd.h"
#include "tests/dist/support.h"

namespace sg::dist {
namespace {

class Fingerprint : public testing::TestWithParam<Executor> {};
INSTANTIATE_TEST_SUITE_P(All, Fingerprint, testing::ValuesIn(kExecutors),
                         [](const auto& info) { return name_of(info.param); });

TEST_P(Fingerprint, WhatWasStartedAndNotWaitedForIsCompared) {
  if (GetParam() == Executor::thread)
    GTEST_SKIP() << "a comm thread finishes what was started, so that the header shows it";
  LooseGroup group(3, GetParam());
  const std::vector<std::string> errors = group.run([](Comm& comm) {
    const Tensor shard = Tensor::zeros({64}), full = Tensor::zeros({192});
    start_all_gather(comm, UnitLabel(0, "conv1"), shard, full).get();
    // Rank 2 takes another unit next; nobody waits for it.
    const UnitLabel next = comm.rank() == 2 ? UnitLabel(2, "fc1") : UnitLabel(1, "conv2");
    const auto started = start_all_gather(comm, next, shard, full);
    check_same_sequence(comm);
  });
  for (const std::string& error : errors)
    EXPECT_EQ(error,
              "[step] rank 2 is in all_gather of unit 2, fc1 (64 x f32, collective 1), rank 0 in "
              "all_gather of unit 1, conv2 (64 x f32, collective 1): all ranks must run the same "
              "program");
}

TEST_P(Fingerprint, EqualSequencesPassEvenBeyondTheRing) {
  LooseGroup group(2, GetParam());
  const std::vector<std::string> errors = group.run([](Comm& comm) {
    const Tensor shard = Tensor::zeros({64}), full = Tensor::zeros({128});
    for (int i = 0; i < 600; ++i) {
      start_all_gather(comm, i % 5, shard, full).wait_readers();
      if (i % 100 == 7) check_same_sequence(comm);
    }
    comm.quiesce();
  });
  EXPECT_EQ(errors, (std::vector<std::string>{"", ""}));
}

TEST_P(Fingerprint, TrainsWithTheBitsAndTrafficOfTraining) {
  std::vector<double> losses[2];
  for (const bool debug : {false, true}) {
    launch_ranks(2,
                 [&](Rank& rank) {
                   const auto engine =
                       initialize(nn::share(nn::Linear(6, 3)), optim::sgd({.lr = 0.1}),
                                  {.plan = "zero3", .debug = debug});
                   for (int step = 0; step < 4; ++step) {
                     const Var y = (*engine)(Tensor::full({2, 6}, rank.index + step));
                     engine->backward(nn::mse_loss(y, Tensor::zeros({2, 3})));
                     engine->step();
                     if (rank.index == 0) losses[debug].push_back(engine->loss());
                   }
                   EXPECT_TRUE(engine->report().matches()) << engine->report().text();
                 },
                 {.threads = 1, .seed = 3, .executor = GetParam()});
  }
  EXPECT_EQ(losses[0], losses[1]);
}

TEST(Deadline, IsReadFromTheEnvironment) {
  const auto with = [](const char* text) {
    ::setenv("SHARDGRAD_DEADLINE", text, 1);
    std::string result;
    try {
      result = std::to_string(LaunchOptions().deadline.count());
    } catch (const Error& error) {
      result = error.what();
    }
    ::unsetenv("SHARDGRAD_DEADLINE");
    return result;
  };
  EXPECT_EQ(with(""), "600000");
  EXPECT_EQ(with("2.5"), "2500");
  EXPECT_EQ(with("0"), "0");
  EXPECT_EQ(with("0.0001"), "1") << "not 0, which is none";
  for (const char* bad : {"-1", "soon", "3s", "1e9", "nan"})
    EXPECT_EQ(with(bad),
              fmt::format("[launch] SHARDGRAD_DEADLINE is '{}'; it must be seconds, from "
                          "0 (none) to 1000000",
                          bad));
}

}  // namespace
}  // namespace sg::dist
