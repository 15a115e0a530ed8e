// The row that docs/extending.md adds to the table of plans, run: test.cmake builds dist/plan.cpp
// with it.
#include <gtest/gtest.h>

#include <bit>

#include "dist/engine.h"
#include "dist/launch.h"
#include "nn/nn.h"
#include "optim/adam.h"

namespace sg {
namespace {

struct Training {
  std::vector<std::uint64_t> loss_bits;
  dist::Report report;
};

Training train(const std::string& plan, int ranks, int accumulate) {
  Training run;
  const auto body = [&](Rank& rank) {
    auto net = nn::sequential(nn::Linear(24, 40), nn::ReLU(), nn::Linear(40, 10));
    auto engine = dist::initialize(net, optim::adam({.lr = 1e-2}),
                                   {.plan = plan, .accumulate = accumulate, .clip_norm = 1.0});
    for (int step = 0; step < 5; ++step) {
      for (int a = 0; a < accumulate; ++a) {
        Tensor x = Tensor::empty({4, 24}), labels = Tensor::empty({4}, DType::i64);
        const int slice = a * ranks + rank.index;
        for (int i = 0; i < 4 * 24; ++i)
          x.data<float>()[i] = static_cast<float>((i * 7 + slice * 13 + step) % 19) / 19.0f;
        for (int i = 0; i < 4; ++i) labels.data<std::int64_t>()[i] = (i + slice) % 10;
        engine->backward(nn::cross_entropy((*engine)(x), labels));
      }
      engine->step();
      if (rank.index == 0) run.loss_bits.push_back(std::bit_cast<std::uint64_t>(engine->loss()));
    }
    const dist::Report report = engine->report();
    if (rank.index == 0) run.report = report;
  };
  dist::launch_ranks(ranks, body, {.threads = 1});
  return run;
}

TEST(NewPlan, TrainsAsItsRowSays) {
  const int ranks = 4, accumulate = 3;
  const Training run = train("zero3-local", ranks, accumulate);
  EXPECT_TRUE(run.report.matches()) << run.report.text();
  // It sums micro-batches first, so it belongs to the family of ddp and zero1.
  EXPECT_EQ(run.loss_bits, train("ddp", ranks, accumulate).loss_bits);
  EXPECT_NE(run.loss_bits, train("zero3", ranks, accumulate).loss_bits);

  // What the page says of it: the gradient rests whole, parameters and states are sharded; 2A + 1
  // times psi.
  const auto bytes = [&](const Training& r, Kind kind) {
    return r.report.bytes[static_cast<std::size_t>(kind)].measured[0];
  };
  const Training ddp = train("ddp", ranks, accumulate), zero3 = train("zero3", ranks, accumulate);
  EXPECT_EQ(bytes(run, Kind::gradients), bytes(ddp, Kind::gradients));
  EXPECT_EQ(bytes(run, Kind::parameters), bytes(zero3, Kind::parameters));
  EXPECT_EQ(bytes(run, Kind::optimizer), bytes(zero3, Kind::optimizer));
  const auto sent = [](const Training& r, const char* name) {
    return r.report.traffic.at(name).measured[0].bytes;
  };
  EXPECT_EQ(sent(run, "reduce_scatter"), sent(ddp, "reduce_scatter"));
  EXPECT_EQ(sent(zero3, "reduce_scatter"), accumulate * sent(run, "reduce_scatter"));
  EXPECT_EQ(sent(run, "all_gather"), sent(zero3, "all_gather"));
}

}  // namespace
}  // namespace sg
