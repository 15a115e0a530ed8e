// Whole values by name at every plan, and weights in and out.
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "core/safetensors.h"
#include "nn/weights.h"
#include "tests/dist/training.h"
#include "tests/support/files.h"

namespace sg::dist {
namespace {

LaunchOptions launch() { return {.threads = 1, .seed = 3, .deadline = milliseconds(20'000)}; }

void step_of(Engine& engine, const TestNet& net, std::int64_t step) {
  const auto [x, target] = net.batch(step, 2 * current_rank().index, 2, DType::f32);
  engine.backward(mse_loss(engine(x), target));
  engine.step();
}

class Inspection : public testing::TestWithParam<std::tuple<const char*, int>> {
 protected:
  std::string plan() const { return std::get<0>(GetParam()); }
  int ranks() const { return std::get<1>(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Plans, Inspection,
                         testing::Combine(testing::ValuesIn(kPlanNames), testing::Values(1, 2, 5)),
                         [](const auto& info) {
                           return fmt::format("{}_{}ranks", std::get<0>(info.param),
                                              std::get<1>(info.param));
                         });

TEST_P(Inspection, InitialValuesAreThoseOfAPlainModule) {
  for (const TestNet& net : test_nets()) {
    launch_ranks(
        ranks(),
        [&](Rank&) {
          const nn::ModulePtr plain = net.make(), module = net.make();
          const auto engine = initialize(module, optim::adam(), {.plan = plan()});
          for (const nn::NamedParameter& p : plain->named_parameters()) {
            const Tensor value = engine->full_parameter(p.name);
            EXPECT_EQ(value.shape(), p.parameter.shape());
            EXPECT_EQ(value.dtype(), p.parameter.dtype());
            EXPECT_EQ(bits_of(value.to_doubles()), bits_of(p.parameter.value().to_doubles()))
                << net.name << " " << p.name;
            for (const std::string& alias : p.aliases)
              EXPECT_EQ(engine->full_parameter(alias).to_doubles(), value.to_doubles()) << alias;
          }
        },
        launch());
  }
}

TEST_P(Inspection, ValuesThatWereThereBeforeMoveIn) {
  // Changed by hand before initialize: they are not made again, and not held twice.
  launch_ranks(
      ranks(),
      [&](Rank& rank) {
        const auto module = std::make_shared<nn::Linear>(30, 20);
        module->weight.value().fill(0.25);
        module->bias.value().fill(-1);
        const auto engine = initialize(module, optim::adam(), {.plan = plan()});
        EXPECT_EQ(engine->full_parameter("weight").to_doubles(), std::vector<double>(600, 0.25));
        EXPECT_EQ(engine->full_parameter("bias").to_doubles(), std::vector<double>(20, -1));
        EXPECT_EQ(rank.ledger().live(Kind::parameters),
                  engine->units()[0]->bytes(engine->plan().param.layout, ranks()));
        EXPECT_TRUE(engine->report().matches()) << engine->report().text();
      },
      launch());
}

TEST_P(Inspection, SetValuesAreReadBack) {
  launch_ranks(
      ranks(),
      [&](Rank&) {
        const TestNet& net = test_net("mlp");
        const auto engine = initialize(net.make(), optim::adam(), {.plan = plan()});
        for (const int round : {0, 1}) {
          for (const char* name : {"0.weight", "2.weight", "4.bias"}) {
            const Shape shape = engine->full_parameter(name).shape();
            Shape rows = shape;
            const Tensor value =
                sample_rows(static_cast<std::uint64_t>(round), 7, 1, shape, DType::f64)
                    .reshape(shape);
            engine->load_parameter(name, value);  // converted
            EXPECT_EQ(engine->full_parameter(name).to_doubles(), value.to(DType::f32).to_doubles())
                << name;
            static_cast<void>(rows);
          }
          const auto other = engine->full_parameter("0.bias").to_doubles();
          step_of(*engine, net, round);
          EXPECT_NE(engine->full_parameter("0.bias").to_doubles(), other);
        }
        // Strides that are not row-major.
        const Tensor transposed = sample_rows(3, 0, 5, {3}, DType::f32).transpose(0, 1);
        engine->load_parameter("4.weight", transposed);
        EXPECT_EQ(engine->full_parameter("4.weight").to_doubles(), transposed.to_doubles());
        EXPECT_TRUE(engine->report().matches()) << engine->report().text();
      },
      launch());
}

TEST_P(Inspection, ErrorsNameWhatThereIs) {
  launch_ranks(
      ranks(),
      [&](Rank&) {
        const auto engine =
            initialize(test_net("frozen").make(), optim::adam(), {.plan = plan(), .accumulate = 2});
        const std::string unknown =
            "[engine] there is no parameter 'one.wieght'; the parameters are before.weight, "
            "before.bias, one.weight, "
            "one.bias, between.weight, between.bias, two.weight, two.bias";
        EXPECT_EQ(error_of([&] { engine->full_parameter("one.wieght"); }), unknown);
        EXPECT_EQ(error_of([&] { engine->full_gradient("one.wieght"); }), unknown);
        EXPECT_EQ(error_of([&] { engine->full_state("one.wieght", "exp_avg"); }), unknown);
        EXPECT_EQ(error_of([&] { engine->load_parameter("one.wieght", Tensor::zeros({1})); }),
                  unknown);
        EXPECT_EQ(error_of([&] { engine->full_gradient("before.weight"); }),
                  "[full_gradient] before.weight is frozen and has no gradient");
        EXPECT_EQ(error_of([&] { engine->full_state("two.bias", "exp_avg"); }),
                  "[full_state] two.bias is frozen and has no optimizer state");
        EXPECT_EQ(
            error_of([&] { engine->full_state("one.weight", "momentum_buffer"); }),
            "[full_state] adam keeps no state 'momentum_buffer'; it keeps: exp_avg, exp_avg_sq");
        EXPECT_EQ(error_of([&] { engine->load_parameter("one.bias", Tensor::zeros({9})); }),
                  "[load_parameter] one.bias is [8], got [9]");
        EXPECT_HAS(error_of([&] { engine->full_gradient("one.weight"); }),
                   "0 of 2 micro-batches are done");
        const auto [x, target] = test_net("frozen").batch(0, 0, 2, DType::f32);
        engine->backward(mse_loss((*engine)(x), target));
        EXPECT_HAS(error_of([&] { engine->full_gradient("one.weight"); }),
                   "[full_gradient] gradients are still accumulating: 1 of 2 micro-batches are "
                   "done; ask after the last backward()");
        engine->backward(mse_loss((*engine)(x), target));
        EXPECT_NO_THROW(engine->full_gradient("one.weight"));
      },
      launch());
}

TEST_P(Inspection, GradientsMayBeReadBeforeAndAfterTheStep) {
  launch_ranks(
      ranks(),
      [&](Rank&) {
        const TestNet& net = test_net("mlp");
        const auto engine =
            initialize(net.make(), optim::adam(), {.plan = plan(), .clip_norm = 0.1});
        const auto undisturbed =
            initialize(net.make(), optim::adam(), {.plan = plan(), .clip_norm = 0.1});
        for (int step = 0; step < 3; ++step) {
          const auto [x, target] = net.batch(step, 2 * current_rank().index, 2, DType::f32);
          engine->backward(mse_loss((*engine)(x), target));
          const auto before = engine->full_gradient("2.weight").to_doubles();
          engine->step();
          EXPECT_EQ(before, engine->full_gradient("2.weight").to_doubles())
              << "before clipping, both times";
          step_of(*undisturbed, net, step);
          EXPECT_EQ(engine->loss(), undisturbed->loss());
          EXPECT_EQ(engine->full_parameter("2.weight").to_doubles(),
                    undisturbed->full_parameter("2.weight").to_doubles());
        }
      },
      launch());
}

// ---- weights

TEST_P(Inspection, SavedFilesAreThoseOfAPlainModule) {
  const test::TemporaryFolder folder;
  for (const TestNet& net : test_nets()) {
    launch_ranks(
        ranks(),
        [&](Rank& rank) {
          if (rank.index == 0) nn::save_weights(*net.make(), folder / "plain");
          const auto engine = initialize(net.make(), optim::adam(), {.plan = plan()});
          engine->save_weights(folder / "engine");
        },
        launch());
    EXPECT_EQ(test::read_file(folder / "engine"), test::read_file(folder / "plain")) << net.name;
  }
}

TEST_P(Inspection, WeightsMoveBetweenPlansAndNumbersOfRanks) {
  const test::TemporaryFolder folder;
  for (const TestNet& net : test_nets()) {
    std::map<std::string, std::vector<double>> trained;
    launch_ranks(
        3,
        [&](Rank& rank) {
          const nn::ModulePtr module = net.make();
          const auto engine = initialize(module, optim::adam({.lr = 0.1}), {.plan = "zero3"});
          for (int step = 0; step < 3; ++step) step_of(*engine, net, step);
          engine->save_weights(folder / "weights");
          for (const auto& p : module->named_parameters()) {
            const auto value = engine->full_parameter(p.name).to_doubles();
            if (rank.index == 0) trained[p.name] = value;
          }
        },
        launch());
    const auto check = [&](Engine& engine, nn::Module& module, const char* how) {
      for (const auto& p : module.named_parameters())
        EXPECT_EQ(bits_of(engine.full_parameter(p.name).to_doubles()), bits_of(trained[p.name]))
            << net.name << " " << p.name << " " << how;
      const SafetensorsFile file(folder / "weights");
      for (const auto& b : module.named_buffers())
        EXPECT_EQ(b.buffer.value().to_doubles(), file.read(b.name).to_doubles()) << b.name;
    };
    launch_ranks(
        ranks(),
        [&](Rank&) {
          {  // through an engine that is there, which then trains on
            const nn::ModulePtr module = net.make();
            const auto engine = initialize(module, optim::adam(), {.plan = plan()});
            step_of(*engine, net, 9);
            engine->load_weights(folder / "weights");
            check(*engine, *module, "into an engine");
            step_of(*engine, net, 10);
            EXPECT_TRUE(engine->report().matches()) << engine->report().text();
          }
          {  // before the engine is made: every rank reads its own span
            const nn::ModulePtr module = net.make();
            nn::load_weights(*module, folder / "weights");
            const auto engine = initialize(module, optim::adam(), {.plan = plan()});
            check(*engine, *module, "before initialize");
          }
        },
        launch());
  }
}

TEST_P(Inspection, FilesThatDoNotFitChangeNothing) {
  const test::TemporaryFolder folder;
  nn::save_weights(*test_net("mlp").make(), folder / "mlp");
  nn::save_weights(nn::sequential(nn::Linear(7, 13), nn::ReLU(), nn::Linear(13, 6, false),
                                  nn::Tanh(), nn::Linear(5, 3, false), nn::Linear(2, 2)),
                   folder / "other");
  launch_ranks(
      ranks(),
      [&](Rank&) {
        const auto engine = initialize(test_net("mlp").make(), optim::adam(), {.plan = plan()});
        const auto before = engine->full_parameter("0.weight").to_doubles();
        const std::string text = error_of([&] { engine->load_weights(folder / "other"); });
        EXPECT_HAS(text,
                   "does not fit the model: missing 4.bias; unexpected 5.bias [2], 5.weight [2, "
                   "2]; 2.weight is [6, 13], "
                   "expected [5, 13]");
        EXPECT_EQ(engine->full_parameter("0.weight").to_doubles(), before);
        EXPECT_HAS(error_of([&] { engine->load_weights(folder / "nothing"); }), "nothing");
        EXPECT_EQ(engine->full_parameter("0.weight").to_doubles(), before);
        engine->load_weights(folder / "mlp");
      },
      launch());
}

TEST_P(Inspection, AFileThatCannotBeWrittenStopsAllRanks) {
  std::string text;
  const double seconds = seconds_of([&] {
    text = error_of([&] {
      launch_ranks(ranks(), [&](Rank&) {
        const auto engine = initialize(test_net("mlp").make(), optim::adam(), {.plan = plan()});
        engine->save_weights("/no/such/folder/weights");
        step_of(*engine, test_net("mlp"), 0);
      });
    });
  });
  EXPECT_HAS(text, "[rank 0] ");
  EXPECT_HAS(text, "/no/such/folder/weights");
  EXPECT_LT(seconds, 2);
}

// ---- sums and buffers

TEST_P(Inspection, SumsAreInRankOrder) {
  launch_ranks(
      ranks(),
      [&, n = ranks()](Rank& rank) {
        const auto engine = initialize(test_net("mlp").make(), optim::adam(), {.plan = plan()});
        const auto value = [](int r, int i) { return std::ldexp(sample_value(1, r, i), 10 * r); };
        std::vector<double> expected(3, 0);
        for (int r = 0; r < n; ++r)
          for (int i = 0; i < 3; ++i) expected[static_cast<std::size_t>(i)] += value(r, i);
        EXPECT_EQ(bits_of(engine->sum_over_ranks(std::vector<double>{
                      value(rank.index, 0), value(rank.index, 1), value(rank.index, 2)})),
                  bits_of(expected));
        EXPECT_EQ(engine->sum_over_ranks(std::vector<std::int64_t>{1, -rank.index}),
                  (std::vector<std::int64_t>{n, -n * (n - 1) / 2}));
        EXPECT_TRUE(engine->sum_over_ranks(std::vector<double>{}).empty());
        EXPECT_TRUE(rank.ledger().traffic(Phase::training).empty()) << "booked apart from training";
        EXPECT_EQ(rank.ledger().traffic(Phase::evaluation, "control").calls, n == 1 ? 0 : 3);
      },
      launch());
}

TEST_P(Inspection, BuffersBecomeTheirMean) {
  launch_ranks(
      ranks(),
      [&, n = ranks()](Rank& rank) {
        const nn::ModulePtr module = test_net("convnet").make();
        const auto engine = initialize(module, optim::adam(), {.plan = plan()});
        const auto buffers = module->named_buffers();
        ASSERT_EQ(buffers.size(), 3u);
        buffers[0].buffer.value().fill(rank.index);        // running_mean
        buffers[1].buffer.value().fill(1 << rank.index);   // running_var
        buffers[2].buffer.value().fill(100 + rank.index);  // num_batches_tracked
        engine->sync_buffers();
        EXPECT_EQ(buffers[0].buffer.value().to_doubles(), std::vector<double>(3, (n - 1) / 2.0));
        EXPECT_EQ(
            buffers[1].buffer.value().to_vector<float>(),
            std::vector<float>(3, static_cast<float>(((1 << n) - 1) / static_cast<double>(n))));
        EXPECT_EQ(buffers[2].buffer.value().to_doubles(), std::vector<double>{100});
      },
      launch());
}

// ---- calls by one rank alone

TEST(Inspection, ByOneRankAloneIsAnErrorNotAHang) {
  using Call = std::function<void(Engine&)>;
  const test::TemporaryFolder folder;
  const std::pair<const char*, Call> calls[] = {
      {"full_parameter", [](Engine& e) { e.full_parameter("0.weight"); }},
      {"full_gradient", [](Engine& e) { e.full_gradient("0.weight"); }},
      {"full_state", [](Engine& e) { e.full_state("0.weight", "exp_avg"); }},
      {"load_parameter", [](Engine& e) { e.load_parameter("0.bias", Tensor::zeros({13})); }},
      {"save_weights", [&](Engine& e) { e.save_weights(folder / "w"); }},
      {"sum_over_ranks", [](Engine& e) { e.sum_over_ranks(std::vector<double>{1}); }},
      {"report", [](Engine& e) { e.report(); }},
  };
  for (const Executor executor : kExecutors) {
    for (const auto& [name, call] : calls) {
      SCOPED_TRACE(fmt::format("{} {}", name, name_of(executor)));
      // The others go on training, or have ended, or compute for longer than the deadline.
      for (const char* others : {"train", "end", "sleep"}) {
        std::string text;
        const double seconds = seconds_of([&, what = std::string(others), &c = call] {
          text = error_of([&] {
            launch_ranks(3,
                         [&](Rank& rank) {
                           const TestNet& net = test_net("mlp");
                           const auto engine =
                               initialize(net.make(), optim::adam(), {.plan = "zero3"});
                           step_of(*engine, net, 0);
                           if (rank.index == 1) c(*engine);
                           if (what == "end") return;
                           if (what == "sleep" && rank.index != 1) sleep_ms(400);
                           step_of(*engine, net, 1);
                         },
                         {.threads = 1, .deadline = milliseconds(200), .executor = executor});
          });
        });
        EXPECT_NE(text, "no error") << others;
        EXPECT_TRUE(text.find("all ranks must run the same program") != std::string::npos ||
                    text.find("every rank must run the same steps") != std::string::npos)
            << others << ": " << text;
        EXPECT_LT(seconds, 2) << others;
      }
    }
  }
}

TEST(Managed, WhatAnEngineKeepsIsNotChangedBehindItsBack) {
  for (const Plan& plan : plans())
    launch_ranks(2, [&](Rank&) {
      nn::Linear net(4, 2);
      {
        const auto engine =
            initialize(net, optim::sgd({.lr = 0.1}), {.plan = std::string(plan.name)});
        EXPECT_HAS(error_of([&] { net.weight.requires_grad_(false); }),
                   "[requires_grad_] weight is managed by an engine; call requires_grad_() before");
        EXPECT_HAS(error_of([&] { net.to(DType::f64); }), "[to] weight is managed by an engine");
        EXPECT_HAS(error_of([&] { net.weight.init(nn::ones); }),
                   "[init] weight is managed by an engine");
      }
      if (plan.param.layout == Layout::full) net.weight.requires_grad_(false);  // it has ended
    });
}

}  // namespace
}  // namespace sg::dist
