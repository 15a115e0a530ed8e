// Steps that are captured as CUDA graphs: the bits of those that are not.
#include "core/cuda/graph.h"

#include <deque>
#include <thread>

#include "core/cuda/cuda.h"
#include "core/ops.h"
#if SG_STAND_IN
#include <cuda_runtime_api.h>
#endif
#include "tests/dist/training.h"
#include "tests/support/files.h"

namespace sg::dist {
namespace {

bool on_gpu() { return current_rank().device.is_cuda(); }

// Everything that changes from step to step: the step number of Adam, the schedule, the random
// numbers of dropout, batch norm's running values, what is accumulated.
class Graphs : public testing::TestWithParam<std::tuple<TestNet, const char*, int>> {};

TEST_P(Graphs, HaveTheBitsOfSingleLaunches) {
  const auto& [net, plan, accumulate] = GetParam();
  Training t{.plan = plan, .accumulate = accumulate, .steps = 5, .optimizer = "adamw"};
  t.schedule = optim::Schedule::cosine(5, 2);
  const Outcome usual = train(net, t);
  t.micro_batches = true;
  EXPECT_EQ(train(net, t).difference(usual), "");
  t.clip_norm = 0.05;
  const Outcome clipped = train(net, t);
  EXPECT_NE(clipped.difference(usual), "");
  t.graphs = false;
  EXPECT_EQ(train(net, t).difference(clipped), "");
  t = {
      .plan = plan, .accumulate = accumulate, .steps = 5, .dtype = DType::bf16, .grad_norm = false};
  const Outcome unread = train(net, t);
  t.micro_batches = true;
  EXPECT_EQ(train(net, t).difference(unread), "");
  for (const Report& report : train(net, t).reports) EXPECT_TRUE(report.matches());
}

INSTANTIATE_TEST_SUITE_P(All, Graphs,
                         testing::Combine(testing::ValuesIn(test_nets()),
                                          testing::Values("ddp", "zero2", "zero3"),
                                          testing::Values(1, 3, 4)),
                         [](const auto& info) {
                           return fmt::format("{}_{}_{}", std::get<0>(info.param).name,
                                              std::get<1>(info.param), std::get<2>(info.param));
                         });

// Counts how often a function that is captured is called.
struct Counted {
  TestNet net = test_net("mlp");
  Training t;
  nn::ModulePtr module = make_module(net, t);
  int calls = 0;

  std::unique_ptr<Engine> engine(EngineOptions options = {}) {
    return initialize(module, optim::adam(), std::move(options));
  }
  MicroBatch micro_batch(Engine& engine) {
    return engine.micro_batch([this, &engine](std::span<const Var> x) {
      ++calls;
      return mse_loss(engine.module()(x[0]), x[1]);
    });
  }
  void step(Engine& engine, MicroBatch& micro_batch, int i, std::int64_t samples = 2) {
    const auto [x, target] = net.batch(i, 0, samples, DType::f32);
    micro_batch({x, target});
    engine.step();
  }
};

TEST(Graph, IsReplayedFromTheThirdCallOn) {
  if (!on_gpu()) GTEST_SKIP() << "on the CPU nothing is captured";
  Counted c;
  const auto engine = c.engine();
  EXPECT_EQ(engine->why_no_graphs(), "");
  MicroBatch micro_batch = c.micro_batch(*engine);
  for (int i = 0; i < 6; ++i) c.step(*engine, micro_batch, i);
  // The dry run on meta, the first step, and the capture.
  EXPECT_EQ(c.calls, 3);
  for (int i = 0; i < 4; ++i) c.step(*engine, micro_batch, i, 5);  // another shape: a graph more
  EXPECT_EQ(c.calls, 5);
  for (int i = 0; i < 4; ++i) c.step(*engine, micro_batch, i);
  EXPECT_EQ(c.calls, 5);
  EXPECT_EQ(engine->steps(), 14);
}

TEST(Graph, IsNotMadeWhereItWouldNotBeSafe) {
  Counted c;
  const auto off = c.engine({.graphs = false});
  EXPECT_EQ(off->why_no_graphs(), "they are switched off");
  MicroBatch micro_batch = c.micro_batch(*off);
  for (int i = 0; i < 4; ++i) c.step(*off, micro_batch, i);
  EXPECT_EQ(c.calls, 5);
  launch_ranks(2, [&](Rank&) {
    Counted mine;
    const auto engine = mine.engine({.plan = "zero2"});
    EXPECT_EQ(engine->why_no_graphs(), on_gpu() ? "ranks wait for each other on the CPU"
                                                : "the parameters are not on a GPU");
    MicroBatch eager = mine.micro_batch(*engine);
    for (int i = 0; i < 4; ++i) mine.step(*engine, eager, i);
    EXPECT_EQ(mine.calls, 5);
  });
}

TEST(Graph, RefusesValuesThatAreReadMeanwhile) {
  if (!on_gpu()) GTEST_SKIP() << "on the CPU nothing is captured";
  Counted c;
  const auto engine = c.engine();
  double sum = 0;
  MicroBatch micro_batch = engine->micro_batch([&](std::span<const Var> x) {
    const Var loss = mse_loss(engine->module()(x[0]), x[1]);
    if (!loss.value().is_meta()) sum += loss.item();
    return loss;
  });
  c.step(*engine, micro_batch, 0);
  EXPECT_GT(sum, 0);
  EXPECT_HAS(error_of([&] { c.step(*engine, micro_batch, 1); }),
             "values move between the GPU and main memory while a step is captured as a CUDA "
             "graph");
  EXPECT_HAS(error_of([&] { c.step(*engine, micro_batch, 1); }), "make a new engine");
}

TEST(Graph, RefusesTensorsThatOutliveIt) {
  if (!on_gpu()) GTEST_SKIP() << "on the CPU nothing is captured";
  Counted c;
  const auto engine = c.engine();
  Tensor kept;
  MicroBatch micro_batch = engine->micro_batch([&](std::span<const Var> x) {
    const Var y = engine->module()(x[0]);
    kept = y.value();
    return mse_loss(y, x[1]);
  });
  c.step(*engine, micro_batch, 0);
  EXPECT_EQ(kept.shape(), (Shape{2, 3}));
  EXPECT_HAS(error_of([&] { c.step(*engine, micro_batch, 1); }),
             "[graph] 1 tensors that were made while a step was captured as a CUDA graph outlive "
             "it");
}

TEST(Graph, FollowsTheModesOfTheModuleAndOfAutograd) {
  const auto run = [](bool graphs) {
    Counted c;
    c.net = test_net("convnet");
    c.module = make_module(c.net, c.t);
    const auto engine = c.engine({.graphs = graphs});
    MicroBatch micro_batch = c.micro_batch(*engine);
    std::vector<double> losses;
    for (int i = 0; i < 16; ++i) {
      c.module->train(i % 4 != 1);  // without dropout, and by the running statistics
      (*std::static_pointer_cast<nn::Sequential>(c.module))[1].train(i % 4 == 0);
      c.step(*engine, micro_batch, i, 4);
      losses.push_back(engine->loss());
    }
    const NoGrad no_grad;
    const auto batch = c.net.batch(9, 0, 4, DType::f32);
    EXPECT_NE(error_of([&] { micro_batch({batch.first, batch.second}); }), "");
    return losses;
  };
  EXPECT_EQ(run(true), run(false));
}

TEST(Graph, ATensorThatOutlivedAFailedCaptureHarmsNobody) {
  if (!on_gpu()) GTEST_SKIP() << "on the CPU nothing is captured";
  Tensor kept;
  {
    Counted c;
    const auto engine = c.engine();
    MicroBatch micro_batch = engine->micro_batch([&](std::span<const Var> x) {
      const Var y = engine->module()(x[0]);
      kept = y.value();
      return mse_loss(y, x[1]);
    });
    c.step(*engine, micro_batch, 0);
    EXPECT_NE(error_of([&] { c.step(*engine, micro_batch, 1); }), "");
  }
  const auto run = [&](bool with_graphs) {
    Counted c;
    const auto engine = c.engine({.graphs = with_graphs});
    MicroBatch micro_batch = c.micro_batch(*engine);
    for (int i = 0; i < 3; ++i) c.step(*engine, micro_batch, i);
    kept = {};
    for (int i = 3; i < 6; ++i) c.step(*engine, micro_batch, i);
    return engine->loss();
  };
  EXPECT_EQ(run(true), run(false));
}

#if SG_STAND_IN
TEST(Graph, SaysWhatItsMemoryIsShortOf) {
  if (!on_gpu()) GTEST_SKIP() << "on the CPU nothing is captured";
  for (const char* call : {"cudaGraphInstantiate", "cudaGraphLaunch"}) {
    Counted c;
    const auto engine = c.engine();
    MicroBatch micro_batch = c.micro_batch(*engine);
    c.step(*engine, micro_batch, 0);
    cuda::fake::fail_call(call, 1, cudaErrorMemoryAllocation);
    EXPECT_HAS(error_of([&] { c.step(*engine, micro_batch, 1); }),
               "[memory] rank 0: the tensors of a step that is captured as a CUDA graph have a "
               "place of their own");
  }
}
#endif

// Peaks beyond what is alive between steps, of a step after the others.
TEST(Graph, AReplayBooksWhatItsTensorsTake) {
  for (const char* plan : {"ddp", "zero3"}) {
    const auto peaks = [&](bool graphs) {
      Counted c;
      c.net = test_net("convnet");
      c.module = make_module(c.net, c.t);
      const auto engine = c.engine({.plan = plan, .graphs = graphs});
      MicroBatch micro_batch = c.micro_batch(*engine);
      for (int i = 0; i < 4; ++i) c.step(*engine, micro_batch, i);
      engine->loss();
      Ledger& ledger = current_rank().ledger();
      ledger.reset_peaks();
      const std::int64_t before = ledger.live_total();
      std::vector<std::int64_t> live;
      for (int k = 0; k < kKinds; ++k) live.push_back(ledger.live(static_cast<Kind>(k)));
      c.step(*engine, micro_batch, 4);
      std::vector<std::int64_t> peaks{ledger.peak_total() - before};
      for (int k = 0; k < kKinds; ++k)
        peaks.push_back(ledger.peak(static_cast<Kind>(k)) - live[static_cast<std::size_t>(k)]);
      EXPECT_GT(peaks[1 + static_cast<int>(Kind::activations)], 0);
      return peaks;
    };
    EXPECT_EQ(peaks(true), peaks(false)) << plan;
  }
}

TEST(Graph, AReplayKeepsTheLedgersLimit) {
  if (!on_gpu()) GTEST_SKIP() << "on the CPU nothing is captured";
  Counted c;
  const auto engine = c.engine();
  MicroBatch micro_batch = c.micro_batch(*engine);
  for (int i = 0; i < 3; ++i) c.step(*engine, micro_batch, i);
  const auto batch = c.net.batch(3, 0, 2, DType::f32);
  Ledger& ledger = current_rank().ledger();
  ledger.set_limit(ledger.live_total() + 64);
  EXPECT_HAS(error_of([&] {
               micro_batch({batch.first, batch.second});
             }),
             "of a replayed step do not fit");
  ledger.set_limit(0);
  micro_batch({batch.first, batch.second});  // nothing was begun
  EXPECT_TRUE(engine->step());
}

TEST(Graph, ReadsInputsOfAnyLayout) {
  const auto run = [](bool graphs) {
    Counted c;
    c.net = test_net("convnet");
    c.module = make_module(c.net, c.t);
    const auto engine = c.engine({.graphs = graphs});
    MicroBatch micro_batch = c.micro_batch(*engine);
    std::vector<double> losses;
    for (int i = 0; i < 12; ++i) {
      const auto [x, target] = c.net.batch(i, 0, 4, DType::f32);
      Tensor images = x;
      if (i % 3 == 1) images = images.channels_last();
      if (i % 3 == 2)
        images = ops::cat(std::vector<Tensor>{images, images}, 1).slice(1, 0, images.size(1));
      EXPECT_EQ(images.is_dense(), i % 3 != 2);
      micro_batch({images, target});
      engine->step();
      losses.push_back(engine->loss());
    }
    // The dry run; with graphs one call and one capture for each of two layouts, and what has
    // gaps is never captured.
    EXPECT_EQ(c.calls, graphs && on_gpu() ? 1 + 2 * 2 + 4 : 1 + 12);
    return losses;
  };
  EXPECT_EQ(run(true), run(false));
}

TEST(Graph, BelongsToAModuleThatIsUsedOtherwiseToo) {
  const auto run = [](bool graphs) {
    Counted c;
    const auto engine = c.engine({.accumulate = 2, .graphs = graphs});
    MicroBatch squares = c.micro_batch(*engine);
    MicroBatch sums = engine->micro_batch(
        [&](std::span<const Var> x) { return mean(abs(engine->module()(x[0]) - x[1])); });
    std::vector<double> seen;
    const test::TemporaryFolder folder;
    const std::string file = folder / "weights.safetensors";
    for (int i = 0; i < 6; ++i) {
      const auto [x, target] = c.net.batch(i, 0, 2, DType::f32);
      squares({x, target});
      {
        const NoGrad no_grad;  // evaluation amid a step
        seen.push_back((*engine)(x).value().to_doubles()[0]);
      }
      (i % 2 == 0 ? sums : squares)({x, target});
      engine->step();
      seen.push_back(engine->loss());
      if (i == 1) engine->save_weights(file);
      if (i == 3) engine->load_weights(file);
    }
    return seen;
  };
  EXPECT_EQ(run(true), run(false));
}

TEST(Graph, IsNotMadeOfTheSeventeenthShape) {
  if (!on_gpu()) GTEST_SKIP() << "on the CPU nothing is captured";
  Counted c;
  const auto engine = c.engine();
  MicroBatch micro_batch = c.micro_batch(*engine);
  for (int samples = 1; samples <= 17; ++samples)
    for (int i = 0; i < 3; ++i) c.step(*engine, micro_batch, i, samples);
  EXPECT_EQ(c.calls, 1 + 16 * 2 + 3);
}

TEST(Graph, TensorsThatDieOnAnotherThreadMeanwhile) {
  if (!on_gpu()) GTEST_SKIP() << "on the CPU nothing is captured";
  Counted c;
  const auto engine = c.engine();
  std::vector<Tensor> old(100);
  for (Tensor& t : old) t = Tensor::full({64}, 1);
  MicroBatch micro_batch = engine->micro_batch([&](std::span<const Var> x) {
    std::thread elsewhere([&] { old.resize(old.empty() ? 0 : old.size() - 20); });
    const Var loss = mse_loss(engine->module()(x[0]), x[1]);
    elsewhere.join();
    return loss;
  });
  for (int i = 0; i < 5; ++i) c.step(*engine, micro_batch, i);
  Counted usual;
  const auto other = usual.engine({.graphs = false});
  MicroBatch eager = usual.micro_batch(*other);
  for (int i = 0; i < 5; ++i) usual.step(*other, eager, i);
  EXPECT_EQ(engine->loss(), other->loss());
}

TEST(Graph, RefusesMoreMicroBatchesThanAStepHas) {
  Counted c;
  const auto engine = c.engine({.accumulate = 3});
  MicroBatch micro_batch = c.micro_batch(*engine);
  const auto batch = c.net.batch(0, 0, 2, DType::f32);
  for (int i = 0; i < 4; ++i) {
    for (int a = 0; a < 3; ++a) micro_batch({batch.first, batch.second});
    EXPECT_HAS(error_of([&] {
                 micro_batch({batch.first, batch.second});
               }),
               "[backward] 3 micro-batches are accumulated already; call step() first");
    EXPECT_TRUE(engine->step());
  }
}

TEST(Graph, LossesOfAStepThatWasNotReadAreNotLost) {
  Counted c;
  const auto engine = c.engine();
  MicroBatch micro_batch = c.micro_batch(*engine);
  std::vector<double> each, last;
  for (int i = 0; i < 4; ++i) {
    c.step(*engine, micro_batch, i);
    each.push_back(engine->loss());
    EXPECT_EQ(engine->loss(), each.back());
  }
  Counted again;
  const auto other = again.engine();
  MicroBatch unread = again.micro_batch(*other);
  for (int i = 0; i < 4; ++i) again.step(*other, unread, i);
  EXPECT_EQ(other->loss(), each.back());
  const auto [x, target] = c.net.batch(4, 0, 2, DType::f32);
  unread({x, target});  // of the step under way
  EXPECT_EQ(other->loss(), each.back());
}

TEST(Graph, LossesAreReadWhenTheyAreWanted) {
  const auto run = [](int late) {
    Counted c;
    const auto engine = c.engine({.accumulate = 2});
    EXPECT_TRUE(engine->step_loss().ready());
    EXPECT_EQ(engine->loss(), 0);
    MicroBatch micro_batch = c.micro_batch(*engine);
    std::deque<StepLoss> losses;
    std::vector<double> read;
    for (int i = 0; i < 8; ++i) {
      for (int a = 0; a < 2; ++a) {
        const auto [x, target] = c.net.batch(i, 2 * a, 2, DType::f32);
        micro_batch({x, target});
      }
      engine->step();
      losses.push_back(engine->step_loss());
      while (std::ssize(losses) > late) {
        read.push_back(losses.front().get());
        EXPECT_TRUE(losses.front().ready());
        EXPECT_EQ(losses.front().get(), read.back());
        losses.pop_front();
      }
    }
    for (const StepLoss& loss : losses) read.push_back(loss.get());
    return read;
  };
  const std::vector<double> at_once = run(0);
  EXPECT_EQ(at_once.size(), 8u);
  for (const int late : {1, 3, 8}) EXPECT_EQ(run(late), at_once) << late;
}

// A net that is given indices, some of which are outside of its embedding.
struct Indices {
  std::unique_ptr<Engine> engine = initialize(
      nn::sequential(nn::Embedding(5, 4), nn::Flatten(), nn::Linear(8, 3)), optim::adam());
  MicroBatch micro_batch = engine->micro_batch([this](std::span<const Var> x) {
    return cross_entropy(engine->module()(x[0]), x[1].value());
  });
  void run(std::int64_t index) {
    micro_batch({Tensor::from<std::int64_t>({1, 2, index, 4}, {2, 2}),
                 Tensor::from<std::int64_t>({0, 2}, {2})});
  }
  void step(std::int64_t index) {
    run(index);
    engine->step();
  }
  std::vector<double> weights() { return engine->full_parameter("2.weight").to_doubles(); }
};
constexpr const char* kIndexError = "[embedding] index 5 at position 2";

TEST(Graph, AnErrorOfAKernelChangesNoParameter) {
  if (!on_gpu()) GTEST_SKIP() << "the CPU throws where it finds it";
  Indices net;
  for (int i = 0; i < 4; ++i) {
    net.step(1);
    EXPECT_TRUE(std::isfinite(net.engine->loss()));
  }
  const std::vector<double> before = net.weights();
  net.step(5);
  for (int i = 0; i < 2; ++i) EXPECT_HAS(error_of([&] { net.engine->loss(); }), kIndexError);
  EXPECT_EQ(net.weights(), before);
  net.step(1);
  EXPECT_TRUE(std::isfinite(net.engine->loss()));
  EXPECT_NE(net.weights(), before);
}

TEST(Graph, AnErrorOfAKernelIsThatOfItsStepHoweverLate) {
  if (!on_gpu()) GTEST_SKIP() << "the CPU throws where it finds it";
  Indices net;
  std::vector<StepLoss> losses;
  for (const int index : {1, 1, 1, 5}) {
    net.step(index);
    losses.push_back(net.engine->step_loss());
  }
  for (std::size_t i = 0; i < 3; ++i) EXPECT_TRUE(std::isfinite(losses[i].get()));
  for (int i = 0; i < 2; ++i) EXPECT_HAS(error_of([&] { losses[3].get(); }), kIndexError);
  // A good step whose loss is read when the next one has gone wrong already.
  net.step(1);
  const std::vector<double> before = net.weights();
  net.run(5);
  EXPECT_TRUE(std::isfinite(net.engine->loss()));
  net.engine->step();
  EXPECT_HAS(error_of([&] { net.engine->loss(); }), kIndexError);
  EXPECT_EQ(net.weights(), before);
}

TEST(Graph, AnErrorOfAKernelIsNotLostIfNobodyReadsTheLoss) {
  if (!on_gpu()) GTEST_SKIP() << "the CPU throws where it finds it";
  const test::TemporaryFolder folder;
  const std::vector<std::function<void(Indices&)>> looks = {
      [](Indices& net) { net.engine->step(); },
      [](Indices& net) { net.engine->full_parameter("2.weight"); },
      [](Indices& net) { net.engine->full_gradient("2.weight"); },
      [](Indices& net) { net.engine->full_state("2.weight", "exp_avg"); },
      [](Indices& net) { net.engine->report(); },
      [&](Indices& net) { net.engine->save_weights(folder / "weights.safetensors"); }};
  for (std::size_t i = 0; i < looks.size(); ++i) {
    SCOPED_TRACE(i);
    Indices net;
    for (int k = 0; k < 3; ++k) net.step(1);
    const std::vector<double> before = net.weights();
    net.step(5);
    if (i == 0) net.run(1);
    EXPECT_HAS(error_of([&] { looks[i](net); }), kIndexError);
    EXPECT_EQ(net.weights(), before);
    EXPECT_HAS(error_of([&] { net.engine->loss(); }), kIndexError);
    EXPECT_EQ(std::filesystem::exists(folder / "weights.safetensors"), false);
    // It has been told: training goes on.
    if (i != 0) net.run(1);
    EXPECT_TRUE(net.engine->step());
    EXPECT_TRUE(std::isfinite(net.engine->loss()));
  }
}

TEST(Graph, AnErrorOfTheLastStepIsThatOfTheJob) {
  if (!on_gpu()) GTEST_SKIP() << "the CPU throws where it finds it";
  const auto train = [](int last, bool elsewhere) {
    launch_ranks(1, [&](Rank& rank) {
      Indices net;
      for (const int index : {1, 1, 1, last}) net.step(index);
      if (elsewhere) rank.device = kCpu;  // new tensors alone go there
    });
  };
  for (const bool elsewhere : {false, true}) {
    EXPECT_EQ(error_of([&] { train(1, elsewhere); }), "no error");
    EXPECT_HAS(error_of([&] { train(5, elsewhere); }), kIndexError);
  }
}

#if SG_STAND_IN
TEST(Graph, AStepThatCannotFetchItsLossLosesNoErrorOfAKernel) {
  if (!on_gpu()) GTEST_SKIP() << "the CPU throws where it finds it";
  // The last copy under way when a further one fails, or the mark behind them.
  for (const auto& fails : {std::pair{"cudaHostAlloc", 2},
                            {"cudaEventCreateWithFlags", 1},
                            {"cudaMemcpyAsync", 3},
                            {"cudaEventCreateWithFlags", 2}}) {
    SCOPED_TRACE(fmt::format("{} {}", fails.first, fails.second));
    std::string step;
    const auto train = [&](int index) {
      launch_ranks(1, [&](Rank&) {
        Indices net;
        net.run(index);
        cuda::fake::fail_call(fails.first, fails.second, cudaErrorMemoryAllocation);
        step = error_of([&] { net.engine->step(); });
      });
    };
    EXPECT_EQ(error_of([&] { train(1); }), "no error");
    EXPECT_NE(step, "no error");
    EXPECT_HAS(error_of([&] { train(5); }), kIndexError);
    EXPECT_EQ(step.find(kIndexError), std::string::npos) << step;
  }
}
#endif

// Where new tensors go is the rank's affair; a step works where the parameters are.
TEST(Graph, AStepNeedsNoCurrentDevice) {
  if (!on_gpu()) GTEST_SKIP() << "on the CPU nothing is captured";
  const Device gpu = current_rank().device;
  const auto run = [&](bool elsewhere) {
    Counted c;
    const auto engine = c.engine();
    MicroBatch micro_batch = c.micro_batch(*engine);
    std::vector<std::pair<Tensor, Tensor>> batches;
    for (int i = 0; i < 4; ++i) batches.push_back(c.net.batch(i, 0, 2, DType::f32));
    const Scoped device(current_rank().device, elsewhere ? kCpu : gpu);
    for (const auto& [x, target] : batches) {
      micro_batch({x, target});
      engine->step();
    }
    return engine->loss();
  };
  EXPECT_EQ(run(true), run(false));
}

}  // namespace
}  // namespace sg::dist
