// Ranks that run different programs, in what the headers of collectives do not show.
#include "dist/fingerprint.h"

#include <optional>

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

TEST_P(Fingerprint, AStepOfADebugEngineStopsRanksThatDiverged) {
  // After backward each rank starts one more collective that nobody waits for; rank 1 takes another
  // unit.
  const auto errors_of_steps = [&](bool debug) {
    LooseGroup group(2, GetParam());
    return group.run([&](Comm& comm) {
      const auto engine = initialize(nn::share(nn::Linear(6, 3)), optim::sgd({.lr = 0.1}),
                                     {.plan = "zero2", .debug = debug});
      const Var y = (*engine)(Tensor::full({2, 6}, comm.rank()));
      engine->backward(nn::mse_loss(y, Tensor::zeros({2, 3})));
      const Tensor shard = Tensor::zeros({64}), full = Tensor::zeros({128});
      const UnitLabel unit = comm.rank() == 1 ? UnitLabel(8, "fc1") : UnitLabel(7, "conv2");
      const auto started = start_all_gather(comm, unit, shard, full);
      engine->step();
      ADD_FAILURE() << "rank " << comm.rank() << " made its step";
    });
  };
  const std::string zero = "all_gather of unit 7, conv2 (64 x f32, collective 2)",
                    one = "all_gather of unit 8, fc1 (64 x f32, collective 2)",
                    same = ": all ranks must run the same program";
  const std::vector<std::string> by_header = {
      "[all_gather] rank 0 is in " + zero + ", rank 1 in " + one + same,
      "[all_gather] rank 1 is in " + one + ", rank 0 in " + zero + same};
  const std::string by_fingerprint = "[step] rank 1 is in " + one + ", rank 0 in " + zero + same;
  EXPECT_EQ(errors_of_steps(false), by_header) << "which is read at the end of the step";
  const std::vector<std::string> errors = errors_of_steps(true);
  for (std::size_t r = 0; r < 2; ++r) {
    // A comm thread may come to the header before the step comes to the fingerprints.
    if (GetParam() == Executor::thread && errors[r] == by_header[r]) continue;
    EXPECT_EQ(errors[r], by_fingerprint) << r;
  }
}

TEST(Debug, IsReadFromTheEnvironment) {
  const auto with = [](const char* text) {
    if (text == nullptr)
      ::unsetenv("SHARDGRAD_DEBUG");
    else
      ::setenv("SHARDGRAD_DEBUG", text, 1);
    const bool by_environment = debug_by_environment(), by_default = EngineOptions().debug;
    EXPECT_EQ(by_environment, by_default);
    return by_environment;
  };
  const char* const value = std::getenv("SHARDGRAD_DEBUG");
  const std::optional<std::string> before =
      value != nullptr ? std::optional<std::string>(value) : std::nullopt;
  EXPECT_FALSE(with(nullptr));
  EXPECT_FALSE(with(""));
  EXPECT_FALSE(with("0"));
  EXPECT_TRUE(with("1"));
  EXPECT_TRUE(with("yes"));
  with(before ? before->c_str() : nullptr);
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
