// initialize, backward and step as an interface: what they refuse, and what options do.
#include "optim/sgd.h"
#include "tests/dist/training.h"

namespace sg::dist {
namespace {

class EveryPlan : public testing::TestWithParam<const char*> {
 protected:
  std::string plan() const { return GetParam(); }
  static LaunchOptions launch() {
    return {.threads = 1, .seed = 3, .deadline = milliseconds(20'000)};
  }
};
INSTANTIATE_TEST_SUITE_P(Plans, EveryPlan, testing::ValuesIn(kPlanNames),
                         [](const auto& info) { return std::string(info.param); });

nn::Sequential small_net() {
  return nn::sequential(nn::Linear(4, 6), nn::Tanh(), nn::Linear(6, 3));
}

Var loss_of(Engine& engine, std::int64_t sample = 0) {
  return mean(
      square(engine(sample_rows(2, sample * 100 + current_rank().index, 2, {4}, DType::f32))));
}

// ---- what is refused

TEST(Initialize, RefusesBadOptions) {
  const auto text = [](EngineOptions options) {
    return error_of([&] { initialize(small_net(), optim::adam(), options); });
  };
  EXPECT_EQ(text({.accumulate = 0}), "[initialize] accumulate must be at least 1, got 0");
  EXPECT_EQ(text({.clip_norm = -1}), "[initialize] clip_norm must not be negative, got -1");
  EXPECT_HAS(text({.plan = "zero5"}), "[plan] there is no plan 'zero5'");
  EXPECT_HAS(
      text({.groups = {{[](const std::string&, const Shape&) { return true; }, {.lr = -1}}}}),
      "lr must be >= 0");
  EXPECT_HAS(text({.groups = {{[](const std::string&, const Shape&) { return true; },
                               {.momentum = 0.5}}}}),
             "a parameter group sets momentum");
  EXPECT_HAS(error_of([] { initialize(nn::ModulePtr(), optim::adam()); }),
             "[initialize] needs a module and an optimizer");
  EXPECT_HAS(error_of([] { initialize(small_net(), nullptr); }),
             "[initialize] needs a module and an optimizer");
  auto frozen = small_net();
  frozen.requires_grad_(false);
  EXPECT_HAS(error_of([&] { initialize(frozen, optim::adam()); }),
             "no parameter that requires a gradient");
  EXPECT_HAS(error_of([] { initialize(nn::sequential(nn::ReLU()), optim::adam()); }),
             "no parameter");
}

TEST(Initialize, RefusesAModuleThatHasAnEngine) {
  for (const char* plan : {"ddp", "zero3"}) {
    const auto net = small_net();
    const auto engine = initialize(net, optim::adam(), {.plan = plan});
    const auto before = engine->full_parameter("0.weight").to_doubles();
    EXPECT_EQ(error_of([&] { initialize(net, optim::adam(), {.plan = plan}); }),
              "[initialize] 0.weight already belongs to an engine");
    // The engine that it has goes on.
    engine->backward(mean(square((*engine)(Tensor::full({2, 4}, 1)))));
    EXPECT_TRUE(engine->step());
    EXPECT_NE(engine->full_parameter("0.weight").to_doubles(), before);
    EXPECT_TRUE(engine->report().matches());
  }
}

TEST_P(EveryPlan, FailedInitializationLeavesNoHalfOwnedParameters) {
  launch_ranks(
      2,
      [&](Rank& rank) {
        const auto net = small_net();
        rank.ledger().set_limit(rank.ledger().live_total() + 700);
        EXPECT_HAS(
            error_of([&] { initialize(net, optim::adam(), {.plan = plan(), .unit_elements = 1}); }),
            "[ledger]");
        rank.ledger().set_limit(0);
        for (const auto& p : net.named_parameters())
          EXPECT_EQ(p.parameter.var().impl().sink, nullptr);
      },
      launch());
}

TEST_P(EveryPlan, BackwardRefusesWhatItCannotAdd) {
  launch_ranks(
      2,
      [&](Rank&) {
        const auto engine =
            initialize(small_net(), optim::adam(), {.plan = plan(), .accumulate = 2});
        const Var stranger = mean(square(Var(Tensor::full({2}, 1), true)));
        EXPECT_EQ(error_of([&] { engine->backward(stranger); }),
                  "[backward] no forward of this engine came before");
        EXPECT_EQ(error_of([&] {
                    engine->backward((*engine)(Tensor::full({2, 4}, 1)));
                  }),
                  "[backward] the loss must be one element, got shape [2, 3]");
        engine->backward(loss_of(*engine));
        engine->backward(loss_of(*engine, 1));
        const Var third = loss_of(*engine, 2);
        EXPECT_EQ(error_of([&] { engine->backward(third); }),
                  "[backward] 2 micro-batches are accumulated already; call step() first");
        EXPECT_TRUE(engine->step()) << "a refused backward changes nothing";
      },
      launch());
}

TEST_P(EveryPlan, GradientsOutsideOfABackwardOfTheEngineAreRefused) {
  launch_ranks(
      2,
      [&](Rank&) {
        auto net = small_net();
        const auto engine = initialize(net, optim::adam(), {.plan = plan()});
        const Tensor x = Tensor::full({2, 4}, 1);
        const std::string expected =
            "got a gradient outside of engine.backward(); call engine.backward(loss), not "
            "loss.backward()";
        EXPECT_HAS(error_of([&] { mean(square(net(x))).backward(); }),
                   expected);  // before any forward of the engine
        EXPECT_HAS(error_of([&] { mean(square((*engine)(x))).backward(); }), expected);
        engine->backward(loss_of(*engine));
        engine->step();
        EXPECT_HAS(error_of([&] { mean(square((*engine)(x))).backward(); }), expected);
      },
      launch());
}

TEST_P(EveryPlan, ASecondBackwardOverOneGraphIsRefused) {
  launch_ranks(
      2,
      [&](Rank&) {
        const auto engine =
            initialize(small_net(), optim::adam(), {.plan = plan(), .accumulate = 2});
        const Var loss = loss_of(*engine);
        engine->backward(loss);
        EXPECT_HAS(error_of([&] { engine->backward(loss); }), "the graph was already used");
      },
      launch());
}

// ---- micro-batches and steps

TEST_P(EveryPlan, StepBeforeTheLastMicroBatchDoesNothing) {
  launch_ranks(
      3,
      [&](Rank& rank) {
        const auto engine =
            initialize(small_net(), optim::sgd({.lr = 0.1}), {.plan = plan(), .accumulate = 3});
        const auto values = [&] { return engine->full_parameter("0.weight").to_doubles(); };
        const auto initial = values();
        EXPECT_FALSE(engine->step());
        for (int a = 0; a < 2; ++a) {
          engine->backward(loss_of(*engine, a));
          const auto traffic = rank.ledger().traffic(Phase::training);
          EXPECT_FALSE(engine->step());
          EXPECT_EQ(rank.ledger().traffic(Phase::training), traffic) << "and sends nothing";
          EXPECT_EQ(values(), initial);
          EXPECT_EQ(engine->steps(), 0);
        }
        engine->backward(loss_of(*engine, 2));
        EXPECT_TRUE(engine->step());
        EXPECT_NE(values(), initial);
        EXPECT_EQ(engine->steps(), 1);
        EXPECT_FALSE(engine->step()) << "the step is done";
        EXPECT_EQ(engine->steps(), 1);
      },
      launch());
}

TEST(Step, RanksMayUseDifferentParameters) {
  // A parameter that only some micro-batches use: zeros from the others, and no deadlock. Sharded
  // parameters are gathered by all or none, so zero3 refuses it:
  // Zero3.DifferentOrdersOnDifferentRanks...
  struct Branches : nn::Module {
    nn::Linear left = child("left", nn::Linear(4, 3)), right = child("right", nn::Linear(4, 3));
    bool go_left = true;
    Var forward(const Var& x) override { return go_left ? left(x) : right(x); }
  };
  const auto train_branches = [&](const std::string& name, int ranks, int accumulate) {
    std::vector<double> result;
    launch_ranks(ranks,
                 [&](Rank& rank) {
                   auto net = std::make_shared<Branches>();
                   const auto engine =
                       initialize(net, optim::adam({.lr = 0.1}),
                                  {.plan = name, .accumulate = accumulate, .grad_norm = true});
                   std::vector<double> mine;
                   for (int step = 0; step < 4; ++step) {
                     for (int a = 0; a < accumulate; ++a) {
                       const int slice = a * ranks + rank.index;
                       net->go_left = slice % 3 != 1;
                       engine->backward(mean(square(
                           (*engine)(sample_rows(4, step * 10 + slice, 2, {4}, DType::f32)))));
                     }
                     engine->step();
                     mine.push_back(engine->loss());
                     mine.push_back(engine->grad_norm().value());
                   }
                   for (const char* p : {"left.weight", "right.bias"})
                     for (const double v : engine->full_parameter(p).to_doubles())
                       mine.push_back(v);
                   if (rank.index == 0) result = mine;
                 },
                 {.threads = 1, .deadline = milliseconds(20'000)});
    return bits_of(result);
  };
  const auto expected = train_branches("ddp", 1, 4);
  for (const char* plan : {"ddp", "zero1", "zero2"})
    EXPECT_EQ(train_branches(plan, 4, 1), expected) << plan;
}

// ---- stopping, schedules, groups

TEST_P(EveryPlan, ARequestToStopReachesAllInTheSameStep) {
  for (const int culprit : {0, 2}) {
    launch_ranks(
        3,
        [&](Rank& rank) {
          const auto engine =
              initialize(small_net(), optim::adam(), {.plan = plan(), .accumulate = 2});
          while (!engine->stop_requested()) {
            ASSERT_LT(engine->steps(), 10);
            engine->backward(loss_of(*engine));
            if (rank.index == culprit && engine->steps() == 3) engine->request_stop();
            EXPECT_FALSE(engine->stop_requested()) << "before the step nobody knows";
            engine->backward(loss_of(*engine, 1));
            engine->step();
          }
          EXPECT_EQ(engine->steps(), 4);
        },
        launch());
  }
}

TEST_P(EveryPlan, SchedulesScaleTheRate) {
  const optim::Schedule schedule = optim::Schedule::cosine(6, 2);
  launch_ranks(
      2,
      [&](Rank&) {
        const auto engine = initialize(small_net(), optim::sgd({.lr = 0.5}),
                                       {.plan = plan(), .schedule = schedule});
        EXPECT_EQ(engine->learning_rate(), 0.25) << "of the first step, before it";
        for (int step = 1; step <= 6; ++step) {
          const auto before = engine->full_parameter("2.bias").to_doubles();
          engine->backward(loss_of(*engine, step));
          engine->step();
          const auto gradient = engine->full_gradient("2.bias").to_doubles();
          const auto after = engine->full_parameter("2.bias").to_doubles();
          EXPECT_EQ(engine->learning_rate(), 0.5 * schedule.factor(step));
          for (std::size_t i = 0; i < before.size(); ++i)
            EXPECT_NEAR(before[i] - after[i], 0.5 * schedule.factor(step) * gradient[i], 1e-7);
        }
      },
      launch());
}

TEST_P(EveryPlan, TheFirstGroupThatMatchesCounts) {
  launch_ranks(
      3,
      [&](Rank&) {
        const auto named = [](const char* part) {
          return [part](const std::string& name, const Shape&) {
            return name.find(part) != std::string::npos;
          };
        };
        const auto engine = initialize(small_net(), optim::sgd({.lr = 0.5}),
                                       {.plan = plan(),
                                        .groups = {{named("2."), {.lr = 0.0}},
                                                   {named("weight"), {.lr = 1.0}},
                                                   {named("2.weight"), {.lr = 100.0}}}});
        std::map<std::string, std::vector<double>> before;
        for (const char* p : {"0.weight", "0.bias", "2.weight", "2.bias"})
          before[p] = engine->full_parameter(p).to_doubles();
        engine->backward(loss_of(*engine));
        engine->step();
        for (const auto& [name, old] : before) {
          const double rate = name[0] == '2' ? 0 : name == "0.weight" ? 1 : 0.5;
          const auto gradient = engine->full_gradient(name).to_doubles(),
                     now = engine->full_parameter(name).to_doubles();
          for (std::size_t i = 0; i < old.size(); ++i)
            EXPECT_NEAR(old[i] - now[i], rate * gradient[i], 1e-6) << name;
        }
      },
      launch());
}

TEST_P(EveryPlan, NormIsOfTheMeanGradientAndOnlyWhereAsked) {
  launch_ranks(
      3,
      [&](Rank& rank) {
        for (const double clip : {0.0, 0.01, 1e6}) {
          const auto engine =
              initialize(small_net(), optim::sgd({.lr = 1}), {.plan = plan(), .clip_norm = clip});
          EXPECT_FALSE(engine->grad_norm().has_value());
          const auto before = engine->full_parameter("0.weight").to_doubles();
          engine->backward(loss_of(*engine));
          engine->step();
          EXPECT_EQ(engine->grad_norm().has_value(), clip > 0);
          double squares = 0;
          for (const char* p : {"0.weight", "0.bias", "2.weight", "2.bias"})
            for (const double g : engine->full_gradient(p).to_doubles()) squares += g * g;
          const double norm = std::sqrt(squares),
                       scale = clip > 0 ? std::min(1.0, clip / (norm + 1e-6)) : 1;
          if (clip > 0) {
            EXPECT_NEAR(*engine->grad_norm(), norm, 1e-6 * norm);
          }
          const auto gradient = engine->full_gradient("0.weight").to_doubles();
          const auto after = engine->full_parameter("0.weight").to_doubles();
          for (std::size_t i = 0; i < before.size(); ++i)
            EXPECT_NEAR(before[i] - after[i], scale * gradient[i], 1e-6);
          static_cast<void>(rank);
        }
      },
      launch());
}

TEST_P(EveryPlan, NotANumberIsNotHidden) {
  // Poisoned data on one rank: all see it in the loss and in the norm.
  launch_ranks(
      3,
      [&](Rank& rank) {
        const auto engine = initialize(small_net(), optim::sgd(), {.plan = plan(), .clip_norm = 1});
        const double bad = rank.index == 1 ? std::numeric_limits<double>::quiet_NaN() : 1;
        engine->backward(mean(square((*engine)(Tensor::full({2, 4}, bad)))));
        engine->step();
        EXPECT_TRUE(std::isnan(engine->loss()));
        EXPECT_TRUE(std::isnan(engine->grad_norm().value()));
      },
      launch());
}

// ---- the report

TEST_P(EveryPlan, WhatOneRankSendsTooMuchIsInEveryRanksReport) {
  for (const char* name : {"reduce_scatter", "of_a_new_arrow"})
    for (const int steps : {1, 3})
      launch_ranks(
          3,
          [&](Rank& rank) {
            const auto engine = initialize(small_net(), optim::sgd({.lr = 0.1}), {.plan = plan()});
            const Engine::Function loss = [&](std::span<const Var> x) {
              Rank& here = current_rank();
              if (rank.index == 1 && engine->steps() == 0 && !x[0].value().is_meta())
                here.account->book_traffic(Phase::training, name, 8);
              return mean(square(engine->module()(x[0])));
            };
            for (int step = 0; step < steps; ++step) {
              const Var x(sample_rows(2, rank.index, 2, {4}, DType::f32));
              engine->backward(engine->forward(loss, {&x, 1}));
              engine->step();
            }
            const Report report = engine->report();
            EXPECT_FALSE(report.matches());
            const std::string text = report.text(), mark = "  DIFFERS on rank 1";
            EXPECT_HAS(text, steps == 1 ? mark + "\n" : mark + ", not in every step\n");
            std::size_t marks = 0;
            for (std::size_t at = 0; (at = text.find("DIFFERS", at)) != std::string::npos; ++at)
              ++marks;
            EXPECT_EQ(marks, 1u) << text;
            const Report::Flow& flow = report.traffic.at(name);
            ASSERT_EQ(flow.measured.size(), 3u);
            for (const std::size_t r : {0u, 1u, 2u}) {
              EXPECT_EQ(flow.measured[r].bytes - flow.predicted.bytes, r == 1 ? 8 / steps : 0) << r;
              EXPECT_EQ(flow.matches(r), r != 1) << r;
            }
          },
          launch());
}

// ---- two engines, and none of the launcher

TEST(Engines, TrainOutsideOfALaunch) {
  const auto engine = initialize(small_net(), optim::adam({.lr = 0.1}), {.plan = "zero3"});
  double first = 0;
  for (int step = 0; step < 20; ++step) {
    engine->backward(loss_of(*engine));
    engine->step();
    if (step == 0) first = engine->loss();
  }
  EXPECT_LT(engine->loss(), first / 2);
  EXPECT_TRUE(engine->report().matches()) << engine->report().text();
}

TEST(Engines, TwoOnOneRankTrainAsEachAlone) {
  // Interleaved in every way that a program may: two nets, each of a plan of its own, with
  // unfinished business of one while the other steps.
  const auto make = [](const char* plan) {
    return initialize(small_net(), optim::adam({.lr = 0.05}), {.plan = plan, .grad_norm = true});
  };
  const auto run = [&](const char* one, const char* two, bool together) {
    std::vector<double> result;
    launch_ranks(3,
                 [&](Rank& rank) {
                   std::vector<double> mine;
                   const auto note = [&](Engine& engine) {
                     mine.push_back(engine.loss());
                     mine.push_back(engine.grad_norm().value());
                   };
                   if (together) {
                     const auto a = make(one), b = make(two);
                     for (int step = 0; step < 4; ++step) {
                       const Var loss_a = loss_of(*a, step), loss_b = loss_of(*b, 50 + step);
                       a->backward(loss_a);
                       b->backward(loss_b);
                       b->step();
                       a->step();
                       note(*a);
                       note(*b);
                     }
                     EXPECT_TRUE(a->report().matches()) << a->report().text();
                     EXPECT_TRUE(b->report().matches()) << b->report().text();
                   } else {
                     std::vector<double> parts[2];
                     for (const int which : {0, 1}) {
                       const auto engine = make(which == 0 ? one : two);
                       for (int step = 0; step < 4; ++step) {
                         engine->backward(loss_of(*engine, 50 * which + step));
                         engine->step();
                         note(*engine);
                       }
                       parts[which].swap(mine);
                     }
                     for (std::size_t i = 0; i < parts[0].size(); i += 2)
                       for (const int which : {0, 1})
                         mine.insert(mine.end(), {parts[which][i], parts[which][i + 1]});
                   }
                   if (rank.index == 0) result = mine;
                 },
                 {.threads = 1, .seed = 3, .deadline = milliseconds(20'000)});
    return bits_of(result);
  };
  for (const auto& [one, two] : {std::pair{"zero3", "zero3"}, {"zero3", "zero2"}, {"ddp", "zero1"}})
    EXPECT_EQ(run(one, two, true), run(one, two, false)) << one << " and " << two;
}

TEST(Engines, MayHaveAPartOfAModelEach) {
  struct Pair : nn::Module {
    nn::Linear generator = child("generator", nn::Linear(4, 4)),
               judge = child("judge", nn::Linear(4, 3));
  };
  launch_ranks(2,
               [](Rank&) {
                 Pair pair;
                 const auto a = initialize(pair.generator, optim::adam(), {.plan = "zero3"});
                 const auto b = initialize(pair.judge, optim::adam(), {.plan = "zero2"});
                 EXPECT_EQ(a->full_parameter("weight").shape(), (Shape{4, 4}))
                     << "by the name within the engine's module";
                 for (int step = 0; step < 2; ++step) {
                   // The generator's loss goes through the judge, whose gradients are not wanted
                   // then.
                   const Var made = (*a)(Tensor::full({2, 4}, 0.5));
                   b->backward(mean(square((*b)(made.detach()))));
                   b->step();
                   a->backward(mean(square(made)));
                   a->step();
                 }
                 EXPECT_NE(a->full_gradient("weight").to_doubles(),
                           b->full_gradient("weight").to_doubles());
               },
               {.threads = 1});
}

TEST(Engines, MayHaveAGroupOfTheirOwn) {
  // Two groups of two ranks, each training a net of its own, handed in.
  ThreadWorld worlds[2] = {{2, {}}, {2, {}}};
  std::vector<double> losses(4);
  launch_ranks(4,
               [&](Rank& rank) {
                 const int group = rank.index / 2;
                 Comm comm(worlds[group].transport(rank.index % 2), Executor::inlined);
                 const auto engine =
                     initialize(small_net(), optim::adam(), {.plan = "zero3", .comm = &comm});
                 for (int step = 0; step < 3; ++step) {
                   engine->backward(mean(square(
                       (*engine)(sample_rows(4, step * 2 + comm.rank(), 2, {4}, DType::f32)))));
                   engine->step();
                 }
                 losses[static_cast<std::size_t>(rank.index)] = engine->loss();
               },
               {.threads = 1});
  EXPECT_EQ(bits_of(losses), bits_of(std::vector<double>(4, losses[0])));
}

}  // namespace
}  // namespace sg::dist
