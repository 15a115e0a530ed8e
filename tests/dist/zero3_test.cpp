// What only a sharded parameter can get wrong: gathering again, never being whole, versions, order
// of use.
#include "autograd/checkpoint.h"
#include "tests/dist/training.h"

namespace sg::dist {
namespace {

// A row of equal layers, big enough to be seen in the ledger.
struct Deep : nn::Module {
  explicit Deep(int depth, std::int64_t width = 32) {
    for (int i = 0; i < depth; ++i)
      layers.push_back(child(fmt::format("fc{}", i), nn::Linear(width, width)));
  }
  Var forward(const Var& x) override {
    Var y = x;
    const int n = static_cast<int>(layers.size());
    for (int i = 0; i < n; ++i) {
      const int layer = reversed ? n - 1 - i : i;
      if (layer != skipped) y = tanh(layers[static_cast<std::size_t>(layer)](y));
    }
    return y;
  }
  std::vector<nn::Linear> layers;
  bool reversed = false;
  int skipped = -1;
};

Tensor input_of(const Rank& rank, std::int64_t step, std::int64_t width = 32) {
  return sample_rows(9, step * rank.world_size * 2 + rank.index * 2, 2, {width}, DType::f32);
}

std::int64_t unit_bytes(const Engine& engine, std::size_t unit = 0) {
  return engine.units()[unit]->padded * 4;
}

class Zero3 : public testing::TestWithParam<std::tuple<bool, Executor>> {
 protected:
  bool prefetch() const { return std::get<0>(GetParam()); }
  LaunchOptions launch() const {
    return {.threads = 1,
            .seed = 5,
            .deadline = milliseconds(20'000),
            .executor = std::get<1>(GetParam())};
  }
  EngineOptions options(std::string plan = "zero3") const {
    return {.plan = std::move(plan), .grad_norm = true, .prefetch = prefetch(), .unit_elements = 1};
  }
};
INSTANTIATE_TEST_SUITE_P(All, Zero3,
                         testing::Combine(testing::Bool(), testing::ValuesIn(kExecutors)),
                         [](const auto& info) {
                           return fmt::format("{}_{}",
                                              std::get<0>(info.param) ? "prefetch" : "on_demand",
                                              name_of(std::get<1>(info.param)));
                         });

TEST_P(Zero3, AtMostTwoOrThreeUnitsAreGathered) {
  launch_ranks(
      3,
      [&](Rank& rank) {
        auto net = std::make_shared<Deep>(9);
        const auto engine = initialize(net, optim::adam(), options());
        ASSERT_EQ(engine->units().size(), 9u);
        for (int step = 0; step < 3; ++step) {
          engine->backward(mean(square((*engine)(input_of(rank, step)))));
          engine->step();
          EXPECT_EQ(rank.ledger().live(Kind::gathered), 0) << "after a step nothing is gathered";
        }
        EXPECT_EQ(rank.ledger().peak(Kind::gathered), (prefetch() ? 2 : 1) * unit_bytes(*engine))
            << "each op reads one unit here";
        const Report report = engine->report();
        EXPECT_TRUE(report.matches()) << report.text();
        EXPECT_EQ(report.bytes[static_cast<std::size_t>(Kind::gathered)].predicted[0],
                  (prefetch() ? 3 : 2) * unit_bytes(*engine));
      },
      launch());
}

TEST_P(Zero3, OpsThatReadTwoUnitsStayWithinTheBound) {
  struct Pairs : nn::Module {
    std::vector<nn::Linear> a;
    Pairs() {
      for (int i = 0; i < 8; ++i)
        a.push_back(child(fmt::format("a{}", i), nn::Linear(16, 16, false)));
    }
    Var forward(const Var& x) override {
      Var y = x;
      for (std::size_t i = 0; i + 1 < a.size(); ++i)
        y = tanh(matmul(y, a[i].weight * a[i + 1].weight));
      return y;
    }
  };
  launch_ranks(
      2,
      [&](Rank& rank) {
        const auto engine = initialize(std::make_shared<Pairs>(), optim::adam(), options());
        for (int step = 0; step < 2; ++step) {
          engine->backward(mean(square((*engine)(input_of(rank, step, 16)))));
          engine->step();
        }
        EXPECT_EQ(rank.ledger().peak(Kind::gathered), (prefetch() ? 3 : 2) * unit_bytes(*engine));
        const Report report = engine->report();
        EXPECT_TRUE(report.matches()) << report.text();
      },
      launch());
}

TEST_P(Zero3, AParameterLookedAtBetweenStepsIsThatOfNow) {
  launch_ranks(
      2,
      [&](Rank& rank) {
        auto net = std::make_shared<Deep>(3);
        const auto engine = initialize(net, optim::adam(), options());
        const nn::Parameter& weight = net->layers[0].weight;
        for (int step = 0; step < 3; ++step) {
          const auto before = weight.value().clone().to_doubles();
          engine->backward(mean(square((*engine)(input_of(rank, step)))));
          EXPECT_EQ(weight.value().to_doubles(), before) << "after backward";
          engine->step();
          const auto after = weight.value().to_doubles();
          EXPECT_EQ(after, engine->full_parameter("fc0.weight").to_doubles());
          EXPECT_NE(after, before);
          EXPECT_EQ(rank.ledger().live(Kind::gathered), 0) << "a look keeps nothing";
        }
        EXPECT_EQ(rank.ledger().traffic(Phase::inspection, "all_gather").calls, 12)
            << "four looks a step; one of them is full_parameter's";
        EXPECT_TRUE(engine->report().matches()) << "looks are no part of a step";
      },
      launch());
}

TEST_P(Zero3, EvaluationOutsideOfTheEngineKeepsNothing) {
  launch_ranks(
      2,
      [&](Rank& rank) {
        auto net = std::make_shared<Deep>(3);
        const auto engine = initialize(net, optim::adam(), options());
        const auto evaluate = [&](auto&& model) {
          const NoGrad no_grad;
          return model(input_of(rank, 7)).value().to_doubles();
        };
        for (int step = 0; step < 2; ++step) {
          engine->backward(mean(square((*engine)(input_of(rank, step)))));
          engine->step();
          EXPECT_EQ(evaluate(*net), evaluate(*engine));
          EXPECT_EQ(rank.ledger().live(Kind::gathered), 0);
        }
        EXPECT_TRUE(engine->report().matches()) << engine->report().text();
      },
      launch());
}

TEST_P(Zero3, EvaluationHasAnOrderOfItsOwn) {
  launch_ranks(
      2,
      [&](Rank& rank) {
        auto net = std::make_shared<Deep>(6);
        const auto engine = initialize(net, optim::adam(), options());
        engine->backward(mean(square((*engine)(input_of(rank, 0)))));
        engine->step();
        net->reversed = true;
        const NoGrad no_grad;
        for (int round = 0; round < 2; ++round) (*engine)(input_of(rank, 1));
        EXPECT_EQ(rank.ledger().traffic(Phase::evaluation, "all_gather").calls, 12)
            << "no unit is gathered that nobody wanted";
      },
      launch());
}

TEST(Zero3Report, ParametersElsewhereAreALineOfTheirOwn) {
  launch_ranks(2, [](Rank& rank) {
    auto net = std::make_shared<Deep>(2, 16);
    // A graph made before the engine keeps the whole weights of then.
    const Var graph = mean(square(net->layers[0](input_of(rank, 0, 16))));
    const auto engine = initialize(net, optim::adam(), {.plan = "zero3", .unit_elements = 1});
    const Report report = engine->report();
    EXPECT_TRUE(report.matches());
    EXPECT_FALSE(report.is_alone());
    EXPECT_HAS(report.text(), "outside of this engine");
  });
  launch_ranks(2, [](Rank& rank) {
    const auto engine = initialize(std::make_shared<Deep>(2, 16), optim::adam(),
                                   {.plan = "zero3", .unit_elements = 1});
    engine->backward(mean(square((*engine)(input_of(rank, 0, 16)))));
    engine->step();
    const Report report = engine->report();
    EXPECT_TRUE(report.is_alone()) << report.text();
    for (const Kind kind : {Kind::parameters, Kind::gradients, Kind::optimizer})
      EXPECT_EQ(rank.ledger().live(kind), report.bytes[static_cast<std::size_t>(kind)]
                                              .predicted[static_cast<std::size_t>(rank.index)])
          << "the rank's own ledger";
  });
}

TEST_P(Zero3, SavedViewsAreGatheredAgainAndHoldNoBytes) {
  // Whatever view of a weight an op saves, it saves the recipe.
  using View = std::function<Var(const Var&)>;
  const std::pair<const char*, View> views[] = {
      {"itself", [](const Var& w) { return w; }},
      {"transpose", [](const Var& w) { return transpose(w, 0, 1); }},
      {"a column, broadcast",
       [](const Var& w) {
         return expand(slice(w, 1, 3, 1), {32, 32});
       }},
      {"a row, reshaped",
       [](const Var& w) {
         return reshape(select(w, 0, 7), {32, 1});
       }},
  };
  struct Viewing : Deep {
    explicit Viewing(View view) : Deep(3), view(std::move(view)) {}
    Var forward(const Var& x) override {
      const Var h = tanh(layers[0](x));
      const Var y = h * mean(h * view(layers[1].weight), 0);
      return layers[2](y);
    }
    View view;
  };
  for (const auto& [name, view] : views) {
    SCOPED_TRACE(name);
    launch_ranks(
        2,
        [&, v = view](Rank& rank) {
          const auto engine = initialize(std::make_shared<Viewing>(v), optim::sgd(), options());
          const auto gathers = [&] {
            return rank.ledger().traffic(Phase::training, "all_gather").calls;
          };
          // 32 rows: the view is multiplied elementwise.
          const Tensor x = sample_rows(1, rank.index * 32, 32, {32}, DType::f32);
          const Var loss = mean(square((*engine)(x)));
          EXPECT_EQ(gathers(), 3) << "each layer once";
          EXPECT_EQ(rank.ledger().live(Kind::gathered), 0) << "the graph holds none";
          engine->backward(loss);
          EXPECT_EQ(gathers(), 3 + 2)
              << "the last and the viewed; the first layer's input wants no gradient";
          EXPECT_EQ(rank.ledger().live(Kind::gathered), 0);
          engine->step();
        },
        launch());
  }
}

TEST_P(Zero3, AModelLargerThanTheLimitTrainsAndIsNeverWhole) {
  constexpr int kRanks = 8, kDepth = 40;
  constexpr std::int64_t kWidth = 64;
  const std::int64_t whole = kDepth * (kWidth * kWidth + kWidth) * 4;
  const auto body = [&](const std::string& plan, Rank& rank) {
    rank.ledger().set_limit(whole * 9 /
                            10);  // before the module is made: its parameters alone would not fit
    auto net = std::make_shared<Deep>(kDepth, kWidth);
    const auto engine = initialize(net, optim::adam(), options(plan));
    std::vector<double> losses;
    for (int step = 0; step < 3; ++step) {
      engine->backward(mean(square((*engine)(input_of(rank, 0, kWidth)))));
      engine->step();
      losses.push_back(engine->loss());
    }
    EXPECT_LT(losses[2], losses[0]);
    EXPECT_LE(rank.ledger().peak_total(), whole * 9 / 10);
    EXPECT_GT(rank.ledger().peak(Kind::gathered), 0);
    const Tensor weight = engine->full_parameter("fc7.weight");
    engine->load_parameter("fc7.weight", weight);
    return losses;
  };
  launch_ranks(
      kRanks, [&](Rank& rank) { body("zero3", rank); }, launch());
  for (const char* plan : {"ddp", "zero1", "zero2"}) {
    const std::string text = error_of([&] {
      launch_ranks(
          kRanks, [&](Rank& rank) { body(plan, rank); }, launch());
    });
    EXPECT_HAS(text, "[ledger]");
    EXPECT_HAS(text, "do not fit");
    EXPECT_HAS(text, "shard more (zero3)");
  }
}

TEST_P(Zero3, AGatheredValueIsReadOnly) {
  launch_ranks(
      2,
      [&](Rank& rank) {
        auto net = std::make_shared<Deep>(2);
        const auto engine = initialize(net, optim::sgd(), options());
        EXPECT_HAS(error_of([&] { net->layers[0].weight.value().fill(1); }),
                   "a gathered value cannot be changed in place");
        engine->backward(mean(square((*engine)(input_of(rank, 0)))));
        engine->step();
      },
      launch());
}

TEST_P(Zero3, StepBetweenForwardAndBackwardIsAnErrorThatNamesTheUnit) {
  for (const char* plan : kPlanNames) {
    SCOPED_TRACE(plan);
    launch_ranks(
        2,
        [&](Rank& rank) {
          auto net = std::make_shared<Deep>(3);
          const auto engine = initialize(net, optim::sgd(), options(plan));
          const Var first = mean(square((*engine)(input_of(rank, 0))));
          const Var second = mean(square((*engine)(input_of(rank, 1))));
          engine->backward(first);
          EXPECT_TRUE(engine->step());
          const std::string text = error_of([&] { engine->backward(second); });
          if (plan == std::string("zero3")) {
            EXPECT_HAS(text,
                       "unit fc2 was changed between forward and backward: version 1, saved at 0");
            EXPECT_HAS(text, "run backward before step()");
          } else {
            EXPECT_HAS(text, "(of unit fc2) was changed in place between forward and backward");
            EXPECT_HAS(text, "run backward before the parameters change");
          }
          // The gradients of that backward are half made: nothing may go on from there.
          EXPECT_HAS(error_of([&] { engine->step(); }),
                     "[step] an earlier backward or step of this engine failed midway");
          EXPECT_HAS(error_of([&] { (*engine)(input_of(rank, 1)); }), "make a new engine");
        },
        launch());
  }
}

TEST_P(Zero3, AParameterLoadedBetweenForwardAndBackwardIsAnError) {
  for (const char* plan : kPlanNames) {
    launch_ranks(
        2,
        [&](Rank& rank) {
          auto net = std::make_shared<Deep>(3);
          const auto engine = initialize(net, optim::sgd(), options(plan));
          const Var loss = mean(square((*engine)(input_of(rank, 0))));
          engine->load_parameter("fc1.weight", Tensor::zeros({32, 32}));
          EXPECT_HAS(error_of([&] { engine->backward(loss); }), "between forward and backward");
        },
        launch());
  }
}

// Losses and parameters of six steps in which the net changes its ways.
std::vector<double> train_changing(const EngineOptions& options, const LaunchOptions& launch) {
  std::vector<double> result;
  launch_ranks(
      3,
      [&](Rank& rank) {
        auto net = std::make_shared<Deep>(5);
        const auto engine = initialize(net, optim::adam(), options);
        std::vector<double> mine;
        for (int step = 0; step < 6; ++step) {
          net->reversed = step % 2 == 1;                      // another order than the recorded one
          net->skipped = step == 2 || step == 3 ? step : -1;  // a layer less
          engine->backward(mean(square((*engine)(input_of(rank, step)))));
          engine->step();
          mine.push_back(engine->loss());
          mine.push_back(engine->grad_norm().value());
        }
        EXPECT_LE(rank.ledger().peak(Kind::gathered), 3 * unit_bytes(*engine));
        for (const auto& p : net->named_parameters())
          for (const double v : engine->full_parameter(p.name).to_doubles()) mine.push_back(v);
        if (rank.index == 0) result = mine;
      },
      launch);
  return result;
}

TEST_P(Zero3, MispredictionIsSlowerButRight) {
  EXPECT_EQ(bits_of(train_changing(options(), launch())),
            bits_of(train_changing(options("ddp"), launch())));
}

TEST_P(Zero3, EvaluationBetweenStepsChangesNothing) {
  std::map<bool, std::vector<double>> results;
  for (const bool evaluate : {false, true}) {
    launch_ranks(
        3,
        [&](Rank& rank) {
          const TestNet& test = test_net("checkpointed");
          const nn::ModulePtr net = test.make();
          const auto engine = initialize(net, optim::adam(), options());
          std::vector<double> mine;
          for (int step = 0; step < 4; ++step) {
            const auto [x, target] = test.batch(step, rank.index * 2, 2, DType::f32);
            if (evaluate) {  // also before the first training step, and between forward and
                             // backward
              const NoGrad no_grad;
              net->eval();
              (*engine)(test.batch(50 + step, 0, 3, DType::f32).first);
              net->train();
            }
            const Var loss = mse_loss((*engine)(x), target);
            if (evaluate && step == 2) {
              const NoGrad no_grad;
              (*engine)(x);
            }
            engine->backward(loss);
            engine->step();
            mine.push_back(engine->loss());
          }
          const Report report = engine->report();
          EXPECT_TRUE(report.matches()) << report.text();
          const std::int64_t evaluated =
              rank.ledger().traffic(Phase::evaluation, "all_gather").calls;
          EXPECT_EQ(evaluated,
                    evaluate ? 5 * static_cast<std::int64_t>(engine->units().size()) : 0);
          if (rank.index == 0) results[evaluate] = mine;
        },
        launch());
  }
  EXPECT_EQ(bits_of(results[false]), bits_of(results[true]));
}

TEST_P(Zero3, EvaluationAloneMatchesItsReport) {
  launch_ranks(
      2,
      [&](Rank& rank) {
        const auto engine = initialize(std::make_shared<Deep>(4), optim::adam(), options());
        {
          const NoGrad no_grad;
          (*engine)(input_of(rank, 0));
        }
        EXPECT_GT(rank.ledger().peak(Kind::gathered), 0);
        const Report report = engine->report();
        EXPECT_TRUE(report.matches()) << report.text();
      },
      launch());
}

TEST_P(Zero3, DifferentOrdersOnDifferentRanksAreAnErrorThatNamesBoth) {
  std::string text;
  const double seconds = seconds_of([&] {
    text = error_of([&] {
      launch_ranks(
          2,
          [&](Rank& rank) {
            auto net = std::make_shared<Deep>(3);
            const auto engine = initialize(net, optim::adam(), options());
            net->reversed = rank.index == 1;
            engine->backward(mean(square((*engine)(input_of(rank, 0)))));
            engine->step();
          },
          launch());
    });
  });
  EXPECT_HAS(text, "all_gather of unit 0");
  EXPECT_HAS(text, "all_gather of unit 2");
  EXPECT_HAS(text, "all ranks must run the same program");
  EXPECT_LT(seconds, 2);
}

TEST(Zero3, ParametersHaveNoValueOnceTheEngineIsGone) {
  launch_ranks(
      2,
      [&](Rank& rank) {
        auto net = std::make_shared<Deep>(2);
        const Tensor x = input_of(rank, 0);
        auto engine = initialize(net, optim::adam(), {.plan = "zero3", .unit_elements = 1});
        engine->backward(mean(square((*engine)(x))));
        engine->step();
        const Var loss = mean(square((*engine)(x)));
        engine.reset();
        const std::string expected =
            "[engine] unit fc0 was sharded by an engine that is gone; save_weights() before it "
            "ends";
        EXPECT_HAS(error_of([&] { (*net)(x); }), expected);
        EXPECT_HAS(error_of([&] { net->layers[0].weight.value(); }), expected);
        EXPECT_HAS(error_of([&] { loss.backward(); }),
                   "unit fc1 was sharded by an engine that is gone");
        EXPECT_HAS(error_of([&] { initialize(net, optim::adam(), {.plan = "ddp"}); }), "unit fc0");
      },
      {.threads = 1});
}

TEST(Zero3, OtherPlansLeaveTheTrainedValues) {
  for (const char* plan : {"ddp", "zero1", "zero2"}) {
    launch_ranks(2,
                 [&](Rank& rank) {
                   auto net = std::make_shared<Deep>(2);
                   const Tensor x = input_of(rank, 0);
                   auto engine = initialize(net, optim::adam(), {.plan = plan});
                   engine->backward(mean(square((*engine)(x))));
                   engine->step();
                   const auto trained = engine->full_parameter("fc1.weight").to_doubles();
                   const Var loss = mean(square((*engine)(x)));
                   engine.reset();
                   EXPECT_EQ(net->layers[1].weight.value().to_doubles(), trained);
                   loss.backward();  // without an engine a gradient stays with its parameter
                   EXPECT_TRUE(net->layers[1].weight.grad().defined());
                   net->zero_grad();
                   // And another engine, of another plan, goes on from there.
                   const auto next = initialize(net, optim::adam(), {.plan = "zero3"});
                   EXPECT_EQ(next->full_parameter("fc1.weight").to_doubles(), trained);
                   next->backward(mean(square((*next)(x))));
                   next->step();
                   EXPECT_TRUE(next->report().matches()) << next->report().text();
                 },
                 {.threads = 1});
  }
}

}  // namespace
}  // namespace sg::dist
