// A rank that fails in the middle of training, wherever it is: the others stop within two seconds,
// whatever the engine has under way, and the message names the first cause.
#include "autograd/node.h"
#include "core/ops.h"
#include "tests/dist/training.h"

namespace sg::dist {
namespace {

enum class Where {
  before_forward,
  in_forward,
  after_forward,
  in_backward,
  before_step,
  after_step,
  in_evaluation
};
constexpr Where kPlaces[] = {Where::before_forward, Where::in_forward,  Where::after_forward,
                             Where::in_backward,    Where::before_step, Where::after_step,
                             Where::in_evaluation};

// Throws in its forward or backward when asked to.
struct Fragile : nn::Module {
  bool in_forward = false, in_backward = false;
  Var forward(const Var& x) override {
    if (in_forward) fail("[test] broken here");
    return record("fragile", {x}, ops::mul(x.value(), 1), [fails = in_backward](Backward& back) {
      if (fails) fail("[test] broken here");
      back.set(0, back.grad());
    });
  }
};

struct Net : nn::Module {
  std::vector<nn::Linear> layers;
  Fragile fragile;
  Net() {
    for (int i = 0; i < 6; ++i) layers.push_back(child(fmt::format("fc{}", i), nn::Linear(16, 16)));
  }
  Var forward(const Var& x) override {
    Var y = x;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      y = tanh(layers[i](y));
      if (i == 2) y = fragile.forward(y);
    }
    return y;
  }
};

void train_until(Where where, const std::string& plan, Rank& rank, int culprit) {
  auto net = std::make_shared<Net>();
  const auto engine = initialize(
      net, optim::adam(), {.plan = plan, .accumulate = 2, .clip_norm = 1, .unit_elements = 1});
  for (int step = 0; step < 50; ++step) {
    const bool now = rank.index == culprit && step == 3;
    const auto here = [&](Where place) {
      if (now && where == place) fail("[test] broken here");
    };
    for (int a = 0; a < 2; ++a) {
      net->fragile.in_forward =
          now && where == Where::in_forward && a == 1 && !rank.device.is_meta();
      net->fragile.in_backward = now && where == Where::in_backward && a == 1;
      here(Where::before_forward);
      const Var loss =
          mean(square((*engine)(sample_rows(1, rank.index + 10 * step, 2, {16}, DType::f32))));
      here(Where::after_forward);
      engine->backward(loss);
    }
    here(Where::before_step);
    engine->step();
    here(Where::after_step);
    const NoGrad no_grad;
    net->fragile.in_forward = now && where == Where::in_evaluation;
    (*engine)(sample_rows(1, rank.index, 2, {16}, DType::f32));
  }
}

class Failing : public testing::TestWithParam<std::tuple<const char*, Executor>> {};
INSTANTIATE_TEST_SUITE_P(
    All, Failing, testing::Combine(testing::ValuesIn(kPlanNames), testing::ValuesIn(kExecutors)),
    [](const auto& info) {
      return fmt::format("{}_{}", std::get<0>(info.param), name_of(std::get<1>(info.param)));
    });

TEST_P(Failing, AnywhereInAStepStopsAllRanks) {
  const auto [plan, executor] = GetParam();
  for (const Where where : kPlaces) {
    for (const int culprit : {0, 2}) {
      std::string text;
      const double seconds = seconds_of([&, p = plan, e = executor] {
        text = error_of([&] {
          launch_ranks(3, [&](Rank& rank) { train_until(where, p, rank, culprit); },
                       {.threads = 1, .executor = e});
        });
      });
      EXPECT_EQ(text, fmt::format("[rank {}] [test] broken here", culprit))
          << static_cast<int>(where);
      EXPECT_LT(seconds, 2) << static_cast<int>(where);
    }
  }
}

TEST_P(Failing, AllRanksAlikeMayBeCaughtAndTrainedOn) {
  // The same error on every rank, caught on every rank: engines die while the exception is on its
  // way, with collectives unfinished, and new ones use the same group.
  const auto [plan, executor] = GetParam();
  for (const Where where : kPlaces) {
    launch_ranks(3,
                 [&, p = plan](Rank& rank) {
                   for (int round = 0; round < 2; ++round)
                     EXPECT_EQ(error_of([&] { train_until(where, p, rank, rank.index); }),
                               "[test] broken here");
                   const TestNet& net = test_net("mlp");
                   const Training t{.plan = p, .ranks = 3};
                   const auto engine = initialize(net.make(), optim::adam(), engine_options(t));
                   for (int step = 0; step < 2; ++step) train_step(*engine, net, t, step);
                   EXPECT_TRUE(std::isfinite(engine->loss()));
                   current_comm().quiesce();
                 },
                 {.threads = 1, .deadline = milliseconds(5'000), .executor = executor});
  }
}

TEST_P(Failing, AnEngineMayEndAnywhere) {
  // Destroyed midway on all ranks, then another one trains in the same group as if nothing had
  // been.
  const auto [plan, executor] = GetParam();
  const TestNet& net = test_net("checkpointed");
  for (const int stop : {0, 1, 2, 3}) {
    launch_ranks(3,
                 [&, p = plan](Rank& rank) {
                   const Training t{.plan = p, .ranks = 3, .accumulate = 2};
                   {
                     Var loss;
                     const auto engine = initialize(net.make(), optim::adam(), engine_options(t));
                     const auto [x, target] = net.batch(0, 2 * rank.index, 2, DType::f32);
                     for (int a = 0; a < 2 && stop > 0; ++a) {
                       loss = mse_loss((*engine)(x), target);
                       if (stop == 1) break;  // between forward and backward
                       engine->backward(loss);
                       if (stop == 2) break;  // between micro-batches
                     }                        // stop == 3: before the step
                   }
                   EXPECT_EQ(rank.ledger().live(Kind::gathered), 0);
                   EXPECT_EQ(rank.ledger().live(Kind::gradients), 0);
                   EXPECT_EQ(rank.ledger().live(Kind::optimizer), 0);
                   const auto engine = initialize(net.make(), optim::adam(), engine_options(t));
                   for (int step = 0; step < 2; ++step) train_step(*engine, net, t, step);
                   EXPECT_TRUE(engine->report().matches()) << engine->report().text();
                 },
                 {.threads = 1, .deadline = milliseconds(5'000), .executor = executor});
  }
}

TEST_P(Failing, MemoryOfAnEngineIsGivenBack) {
  const auto [plan, executor] = GetParam();
  launch_ranks(2,
               [&, p = plan](Rank& rank) {
                 std::int64_t first = 0;
                 for (int round = 0; round < 4; ++round) {
                   {
                     const Training t{.plan = p, .ranks = 2};
                     const TestNet& net = test_net("mlp");
                     const auto engine = initialize(net.make(), optim::adam(), engine_options(t));
                     for (int step = 0; step < 2; ++step) train_step(*engine, net, t, step);
                   }
                   if (round == 0) first = rank.ledger().live_total();
                   EXPECT_EQ(rank.ledger().live_total(), first) << "round " << round;
                   EXPECT_EQ(rank.ledger().live_total(), 0);
                 }
               },
               {.threads = 1, .executor = executor});
}

TEST_P(Failing, PeaksDoNotDependOnTiming) {
  // A rank allocates and frees on its own thread in program order, whoever moves the bytes and
  // however late.
  const auto [plan, executor] = GetParam();
  std::vector<std::vector<std::int64_t>> runs;
  for (int run = 0; run < 3; ++run) {
    std::vector<std::int64_t> peaks(3 * kKinds);
    launch_ranks(3,
                 [&, p = plan](Rank& rank) {
                   const Training t{.plan = p, .ranks = 3, .accumulate = 2};
                   const TestNet& net = test_net("checkpointed");
                   const auto engine = initialize(net.make(), optim::adam(), engine_options(t));
                   std::mt19937 random(static_cast<unsigned>(100 * run + rank.index));
                   for (int step = 0; step < 4; ++step) {
                     if (run > 0)
                       std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000));
                     train_step(*engine, net, t, step);
                   }
                   for (int k = 0; k < kKinds; ++k)
                     peaks[static_cast<std::size_t>(rank.index * kKinds + k)] =
                         rank.ledger().peak(static_cast<Kind>(k));
                 },
                 {.threads = 1, .executor = executor});
    runs.push_back(peaks);
  }
  EXPECT_EQ(runs[0], runs[1]);
  EXPECT_EQ(runs[0], runs[2]);
}

}  // namespace
}  // namespace sg::dist
