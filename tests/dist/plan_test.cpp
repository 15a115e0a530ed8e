// The table, units, and the formula against numbers worked out by hand.
#include "dist/formula.h"
#include "tests/dist/training.h"

namespace sg::dist {
namespace {

// ---- the table

TEST(Plan, RowsOfTheTable) {
  using enum Layout;
  struct Row {
    std::string_view name;
    Layout param, grad, reduced, state;
  };
  const Row rows[] = {{"ddp", full, partial, full, full},
                      {"zero1", full, partial, shard, shard},
                      {"zero2", full, shard, shard, shard},
                      {"zero3", shard, shard, shard, shard}};
  ASSERT_EQ(plans().size(), std::size(rows));
  for (std::size_t i = 0; i < std::size(rows); ++i) {
    const Plan& plan = plans()[i];
    EXPECT_EQ(plan.name, rows[i].name);
    EXPECT_EQ(plan.param.layout, rows[i].param) << plan.name;
    EXPECT_EQ(plan.grad.layout, rows[i].grad) << plan.name;
    EXPECT_EQ(plan.reduced.layout, rows[i].reduced) << plan.name;
    EXPECT_EQ(plan.state.layout, rows[i].state) << plan.name;
    for (const Cell& cell : {plan.param, plan.grad, plan.reduced, plan.state})
      EXPECT_EQ(cell.tier, Tier::device);
    EXPECT_EQ(&find_plan(rows[i].name), &plan);
    EXPECT_EQ(&find_plan(std::to_string(i)), &plan) << "DeepSpeed's stage";
  }
}

TEST(Plan, UnknownNamesAreAnsweredWithTheNearest) {
  const std::pair<const char*, const char*> cases[] = {{"zero", "zero1"},
                                                       {"zeor3", "zero3"},
                                                       {"Zero2", "zero2"},
                                                       {"dpp", "ddp"},
                                                       {"zero3+cpu", "zero3"}};
  for (const auto& [name, nearest] : cases)
    EXPECT_EQ(
        error_of([&, n = name] { find_plan(n); }),
        fmt::format(
            "[plan] there is no plan '{}'; did you mean {}? (plans: ddp, zero1, zero2, zero3)",
            name, nearest));
  EXPECT_HAS(error_of([] { find_plan("4"); }), "there is no plan '4'");
  EXPECT_HAS(error_of([] { find_plan(""); }), "there is no plan ''");
  EXPECT_HAS(error_of([] { initialize(nn::Linear(2, 2), optim::adam(), {.plan = "zerro2"}); }),
             "did you mean zero2?");
}

// ---- units

struct Declared : nn::Module {
  using nn::Module::add_child;
  nn::Parameter add(const std::string& name, const Shape& shape, DType dtype = DType::f32) {
    return parameter(name, shape, nn::normal(), dtype);
  }
};

// The properties that everything else relies on.
void check_layout(const std::vector<nn::NamedParameter>& parameters, int ranks,
                  std::int64_t target) {
  const std::vector<UnitLayout> units = make_units(parameters, ranks, target);
  const std::vector<UnitLayout> alone = make_units(parameters, 1, target);
  std::int64_t total = 0;
  for (const auto& p : parameters) total += p.parameter.numel();
  const std::int64_t limit = target > 0 ? target : total / 20;
  ASSERT_EQ(units.size(), alone.size()) << "the same units for every number of ranks";
  std::size_t next = 0;
  for (std::size_t u = 0; u < units.size(); ++u) {
    const UnitLayout& unit = units[u];
    ASSERT_EQ(unit.name, alone[u].name);
    ASSERT_EQ(unit.padded % (ranks * kBlock), 0) << "a shard is whole blocks";
    ASSERT_GT(unit.padded, 0);
    ASSERT_EQ(unit.grad_dtype, sum_dtype(unit.dtype));
    std::int64_t end = 0, elements = 0;
    ASSERT_FALSE(unit.segments.empty());
    for (std::size_t s = 0; s < unit.segments.size(); ++s, ++next) {
      const Segment& segment = unit.segments[s];
      ASSERT_LT(next, parameters.size());
      ASSERT_EQ(segment.name(), parameters[next].name) << "every parameter once, in order";
      ASSERT_EQ(segment.offset % kBlock, 0);
      ASSERT_EQ(segment.offset, alone[u].segments[s].offset) << "blocks do not depend on the ranks";
      ASSERT_GE(segment.offset, end);
      ASSERT_LT(segment.offset - end, kBlock) << "gaps are smaller than a block";
      ASSERT_EQ(segment.length, segment.parameter().numel());
      ASSERT_EQ(segment.parameter().dtype(), unit.dtype);
      ASSERT_EQ(segment.parameter().requires_grad(), unit.trainable);
      end = segment.offset + segment.length;
      elements += segment.length;
    }
    ASSERT_EQ(unit.elements, elements);
    ASSERT_LT(unit.padded - std::max<std::int64_t>(end, 1), ranks * kBlock)
        << "no more padding than needed";
    ASSERT_EQ(unit.count(Layout::shard, ranks) * ranks, unit.count(Layout::full, ranks));
    if (unit.name.find(" .. ") != std::string::npos) {
      ASSERT_LE(unit.elements, limit) << "merged: " << unit.name;
    }
  }
  ASSERT_EQ(next, parameters.size());
}

TEST(Units, PropertiesOfRandomModels) {
  std::mt19937 random(3);
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  constexpr DType kTypes[] = {DType::f32, DType::f64, DType::bf16};
  for (int trial = 0; trial < 200; ++trial) {
    Declared model;
    std::vector<std::shared_ptr<Declared>> layers;
    for (int l = 0; l < 1 + below(6); ++l) {
      auto layer = std::make_shared<Declared>();
      for (int p = 0; p < 1 + below(3); ++p) {
        const nn::Parameter parameter = layer->add(fmt::format("p{}", p), {below(5), 1 + below(60)},
                                                   kTypes[below(3)]);
        if (below(4) == 0) parameter.requires_grad_(false);
      }
      model.add_child(fmt::format("layer{}", l), *layer);
      layers.push_back(layer);
    }
    for (const int ranks : {1, 2, 3, 8})
      for (const std::int64_t target : {0, 1, 100, 1'000'000})
        check_layout(model.named_parameters(), ranks, target);
  }
}

TEST(Units, LayersAreKeptWholeAndNeighboursMerged) {
  Declared model;
  std::vector<std::unique_ptr<Declared>> layers;
  const auto layer = [&](const std::string& name, std::int64_t weight,
                         std::int64_t bias) -> Declared& {
    layers.push_back(std::make_unique<Declared>());
    layers.back()->add("weight", {weight});
    layers.back()->add("bias", {bias});
    model.add_child(name, *layers.back());
    return *layers.back();
  };
  layer("a", 100, 10);
  layer("b", 200, 10);
  layer("c", 30, 1);
  layer("d", 500, 10);
  const auto names = [&](std::int64_t target) {
    std::string text;
    for (const UnitLayout& unit : make_units(model.named_parameters(), 2, target))
      text += fmt::format("{}({}) ", unit.name, unit.padded);
    return text;
  };
  // a: 100 at 0, 10 at 128 -> 138 -> 256. b: 200, 10 at 256 -> 266 -> 384. c: 30, 1 at 64 -> 128.
  // d: 500, 10 at 512 -> 640.
  EXPECT_EQ(names(1), "a(256) b(384) c(128) d(640) ");
  EXPECT_EQ(names(0), "a(256) b(384) c(128) d(640) ") << "a twentieth of 861 is 43";
  // b: a's, then 200 at 192, 10 at 448 -> 458 -> 512. c: 30 at 512 (after 458), 1 at 576 -> 577 ->
  // 640.
  EXPECT_EQ(names(320), "a .. b(512) c(128) d(640) ");
  EXPECT_EQ(names(351), "a .. c(640) d(640) ");
  EXPECT_EQ(make_units(model.named_parameters(), 2, 1'000'000).size(), 1u);
  model.parameter_named("b.weight").requires_grad_(false);
  EXPECT_EQ(names(1'000'000), "a(256) b(256) b .. d(768) ")
      << "frozen parameters have units of their own";
}

TEST(Units, ExampleNetsHaveSeveral) {
  struct Tutorial : nn::Module {
    nn::Conv2d conv1 = child("conv1", nn::Conv2d(3, 6, 5)),
               conv2 = child("conv2", nn::Conv2d(6, 16, 5));
    nn::Linear fc1 = child("fc1", nn::Linear(400, 120)), fc2 = child("fc2", nn::Linear(120, 84)),
               fc3 = child("fc3", nn::Linear(84, 10));
  };
  const Tutorial net;
  const auto units = make_units(net.named_parameters(), 4, 0);
  EXPECT_GE(units.size(), 3u);
  std::int64_t elements = 0;
  for (const UnitLayout& unit : units) elements += unit.elements;
  EXPECT_EQ(elements, 62006);
}

TEST(Units, ParametersInF16AreRefusedByName) {
  nn::Linear net(3, 3);
  net.to(DType::f16);
  EXPECT_EQ(error_of([&] { initialize(net, optim::adam()); }),
            "[units] weight is f16, whose gradients underflow without a scaled loss; units are "
            "f32, f64 or bf16, convert the module with to()");
  EXPECT_HAS(error_of([] { initialize(nn::Linear(3, 3), optim::adam(), {.unit_elements = -1}); }),
             "[units] unit_elements must not be negative, got -1");
}

// ---- the formula, by hand

std::vector<UnitLayout> two_units(int ranks) {
  // 100 and 1000 elements, f32; on 4 ranks 256 and 1024, shards of 64 and 256.
  std::vector<UnitLayout> units(2);
  for (std::size_t u = 0; u < 2; ++u) {
    units[u].elements = u == 0 ? 100 : 1000;
    units[u].padded = (units[u].elements + 64 * ranks - 1) / (64 * ranks) * 64 * ranks;
  }
  return units;
}

Prediction predict_two(const char* plan, int ranks, int accumulate,
                       std::vector<UnitReads> reads = {{1, 1}, {1, 1}}, bool frozen = false,
                       bool prefetch = true) {
  std::vector<UnitLayout> units = two_units(ranks);
  units[0].trainable = !frozen;
  return predict(find_plan(plan), {&units[0], &units[1]}, reads, {0, 1, 1, 0}, ranks, accumulate, 2,
                 prefetch, {accumulate + 1});
}

std::int64_t bytes_of(const Prediction& p, Kind kind) {
  return p.bytes[static_cast<std::size_t>(kind)];
}

TEST(Formula, TrafficOfThePlainCase) {
  constexpr std::int64_t kPsi = 3 * (64 + 256) * 4;  // (N - 1) shards of f32
  for (const std::int64_t a : {1, 2, 5}) {
    struct Row {
      const char* plan;
      std::int64_t gathers, scatters;  // of each unit
      std::int64_t total;              // as the table says it
    };
    const Row rows[] = {
        {"ddp", 1, 1, 2}, {"zero1", 1, 1, 2}, {"zero2", 1, a, a + 1}, {"zero3", 2 * a, a, 3 * a}};
    for (const Row& row : rows) {
      SCOPED_TRACE(fmt::format("{} A = {}", row.plan, a));
      const Prediction p = predict_two(row.plan, 4, static_cast<int>(a));
      EXPECT_EQ(p.traffic.at("all_gather"), (Traffic{2 * row.gathers, row.gathers * kPsi}));
      EXPECT_EQ(p.traffic.at("reduce_scatter"), (Traffic{2 * row.scatters, row.scatters * kPsi}));
      EXPECT_EQ(p.traffic.at("all_gather").bytes + p.traffic.at("reduce_scatter").bytes,
                row.total * kPsi);
      EXPECT_EQ(p.traffic.at("control"), (Traffic{1, 3 * 8 * (a + 1)}));
    }
  }
}

TEST(Formula, OneRankSendsNothing) {
  for (const char* plan : kPlanNames)
    for (const auto& [name, flow] : predict_two(plan, 1, 3).traffic)
      EXPECT_EQ(flow, Traffic{}) << plan << name;
}

TEST(Formula, BytesOfThePlainCase) {
  constexpr std::int64_t kFull = (256 + 1024) * 4, kShard = kFull / 4;
  struct Row {
    const char* plan;
    std::int64_t parameters, gradients, optimizer;
  };
  const Row rows[] = {{"ddp", kFull, kFull, 2 * kFull},
                      {"zero1", kFull, kFull, 2 * kShard},
                      {"zero2", kFull, kShard, 2 * kShard},
                      {"zero3", kShard, kShard, 2 * kShard}};
  for (const Row& row : rows) {
    const Prediction p = predict_two(row.plan, 4, 2);
    EXPECT_EQ(bytes_of(p, Kind::parameters), row.parameters) << row.plan;
    EXPECT_EQ(bytes_of(p, Kind::gradients), row.gradients) << row.plan;
    EXPECT_EQ(bytes_of(p, Kind::optimizer), row.optimizer) << row.plan;
    EXPECT_EQ(bytes_of(p, Kind::gathered), row.plan == std::string("zero3") ? (256 + 1024) * 4 : 0)
        << row.plan;
  }
  // Windows of use order 0 1 1 0: whether of two uses or of three, they hold both units, once.
  EXPECT_EQ(bytes_of(predict_two("zero3", 4, 1, {{1, 1}, {1, 1}}, false, false), Kind::gathered),
            (256 + 1024) * 4);
  EXPECT_EQ(bytes_of(predict_two("zero3", 4, 1), Kind::gathered), (256 + 1024) * 4);
}

// Twos: parameters, whether at rest, gathered or published. Fours: all that is a sum.
TEST(Formula, OfBf16CountsParametersHalfAndSumsWhole) {
  constexpr std::int64_t kElements = 256 + 1024, kSent = 3 * (64 + 256);
  struct Row {
    const char* plan;
    std::int64_t parameters, gradients, optimizer, gathered, gathers, scatters;
  };
  const Row rows[] = {
      {"ddp", 2 * kElements, 4 * kElements, 8 * kElements, 0, 4 * kSent, 4 * kSent},
      {"zero1", 2 * kElements, 4 * kElements, 2 * kElements, 0, 2 * kSent, 4 * kSent},
      {"zero2", 2 * kElements, kElements, 2 * kElements, 0, 2 * kSent, 3 * 4 * kSent},
      {"zero3", kElements / 2, kElements, 2 * kElements, 2 * kElements, 3 * 2 * 2 * kSent,
       3 * 4 * kSent}};
  for (const Row& row : rows) {
    std::vector<UnitLayout> units = two_units(4);
    for (UnitLayout& unit : units) unit.dtype = DType::bf16;
    const Prediction p = predict(find_plan(row.plan), {&units[0], &units[1]}, {{1, 1}, {1, 1}},
                                 {0, 1, 1, 0}, 4, 3, 2, true, {4});
    EXPECT_EQ(bytes_of(p, Kind::parameters), row.parameters) << row.plan;
    EXPECT_EQ(bytes_of(p, Kind::gradients), row.gradients) << row.plan;
    EXPECT_EQ(bytes_of(p, Kind::optimizer), row.optimizer) << row.plan;
    EXPECT_EQ(bytes_of(p, Kind::gathered), row.gathered) << row.plan;
    EXPECT_EQ(p.traffic.at("all_gather").bytes, row.gathers) << row.plan;
    EXPECT_EQ(p.traffic.at("reduce_scatter").bytes, row.scatters) << row.plan;
  }
}

TEST(Formula, AUnitThatComesAgainAfterAnotherMayBeGatheredTwiceAtOnce) {
  const std::vector<UnitLayout> units = two_units(4);
  const auto gathered = [&](const std::vector<int>& order) {
    return bytes_of(predict(find_plan("zero3"), {&units[0], &units[1]}, {{1, 1}, {1, 1}}, order, 4,
                            1, 2, true, {2}),
                    Kind::gathered);
  };
  EXPECT_EQ(gathered({1, 0, 1, 0}), (1024 + 256 + 1024) * 4);
  EXPECT_EQ(gathered({1, 1, 1, 1}), 1024 * 4);
}

TEST(Formula, ReadsAndFrozenUnitsCount) {
  constexpr std::int64_t kZero = 3 * 64 * 4, kOne = 3 * 256 * 4;
  {  // zero3, A = 2: unit 0 is read twice forward and not backward, unit 1 once and three times
    const Prediction p = predict_two("zero3", 4, 2, {{2, 0}, {1, 3}});
    EXPECT_EQ(p.traffic.at("all_gather"), (Traffic{2 * (2 + 4), 2 * (2 * kZero + 4 * kOne)}));
    EXPECT_EQ(p.traffic.at("reduce_scatter"), (Traffic{2 * 2, 2 * (kZero + kOne)}));
  }
  for (const char* plan : kPlanNames) {  // unit 0 frozen: no gradient, no state, nothing published
    const Prediction p = predict_two(plan, 4, 2, {{1, 0}, {1, 1}}, true);
    const bool zero3 = plan == std::string("zero3"), each = zero3 || plan == std::string("zero2");
    EXPECT_EQ(p.traffic.at("reduce_scatter"), (Traffic{each ? 2 : 1, (each ? 2 : 1) * kOne}))
        << plan;
    EXPECT_EQ(p.traffic.at("all_gather"),
              (zero3 ? Traffic{2 * 3, 2 * (kZero + 2 * kOne)} : Traffic{1, kOne}))
        << plan;
    const std::int64_t state = plan == std::string("ddp") ? 1024 : 256;
    EXPECT_EQ(bytes_of(p, Kind::optimizer), 2 * state * 4) << plan;
  }
}

// ---- what a model reads, counted by hand, against what zero3 moves

struct Reads {
  std::string unit;
  std::int64_t forward, backward, trained;
};

void expect_traffic(const std::function<nn::ModulePtr()>& make, const Shape& input,
                    bool input_gradient, const std::vector<Reads>& expected) {
  constexpr int kRanks = 3, kSteps = 2;
  for (const bool prefetch : {true, false}) {
    for (const int accumulate : {1, 3}) {
      launch_ranks(
          kRanks,
          [&](Rank& rank) {
            const auto engine = initialize(make(), optim::sgd(),
                                           {.plan = "zero3",
                                            .accumulate = accumulate,
                                            .prefetch = prefetch,
                                            .unit_elements = 1});
            ASSERT_EQ(engine->units().size(), expected.size());
            const std::int64_t steps = kSteps * accumulate;
            Traffic gathers, scatters;
            for (std::size_t u = 0; u < expected.size(); ++u) {
              ASSERT_EQ(engine->units()[u]->name, expected[u].unit);
              const std::int64_t sent = (kRanks - 1) * engine->units()[u]->padded / kRanks * 4;
              const std::int64_t reads = expected[u].forward + expected[u].backward;
              gathers.calls += steps * reads;
              gathers.bytes += steps * reads * sent;
              scatters.calls += steps * expected[u].trained;
              scatters.bytes += steps * expected[u].trained * sent;
            }
            for (std::int64_t i = 0; i < steps; ++i) {
              const Tensor x = sample_rows(5, i * kRanks + rank.index, 2, input, DType::f32);
              engine->backward(mean(square((*engine)(Var(x, input_gradient)))));
              engine->step();
            }
            EXPECT_EQ(rank.ledger().traffic(Phase::training, "all_gather"), gathers);
            EXPECT_EQ(rank.ledger().traffic(Phase::training, "reduce_scatter"), scatters);
            const Report report = engine->report();
            // The gradient of an input is no parameter's, but is booked beside them.
            if (!input_gradient) {
              EXPECT_TRUE(report.matches()) << report.text();
            }
            EXPECT_EQ(report.traffic.at("all_gather").predicted.calls * kSteps, gathers.calls);
          },
          {.threads = 1});
    }
  }
}

TEST(Reads, OfPlainLayersAreThreePsi) {
  const auto make = [] {
    return nn::share(nn::sequential(nn::Linear(7, 13), nn::Tanh(), nn::Linear(13, 5)));
  };
  // 3 A Psi in the plain case, which is one whose input wants a gradient; a first layer is not read
  // again in backward.
  expect_traffic(make, {7}, true, {{"0", 1, 1, 1}, {"2", 1, 1, 1}});
  expect_traffic(make, {7}, false, {{"0", 1, 0, 1}, {"2", 1, 1, 1}});
}

TEST(Reads, OfConvolutionsAndNorms) {
  const auto make = [] { return nn::share(small_convnet()); };
  // Normalisation reads its weight again in backward.
  expect_traffic(make, {2, 6, 6}, false,
                 {{"0", 1, 0, 1}, {"1", 1, 1, 1}, {"5", 1, 1, 1}, {"8", 1, 1, 1}});
}

TEST(Reads, OfFrozenLayers) {
  // Nothing before the first trained layer is read in backward; frozen layers after it are.
  expect_traffic(maker<Frozen>(), {7}, false,
                 {{"before", 1, 0, 0},
                  {"one", 1, 0, 1},
                  {"between", 1, 1, 0},
                  {"two", 1, 1, 1},
                  {"two", 1, 0, 0}});
}

TEST(Reads, OfUnusedAndZeroSizedParameters) {
  expect_traffic(maker<Unused>(), {7}, false,
                 {{"model", 0, 0, 1}, {"one", 1, 0, 1}, {"never", 0, 0, 1}, {"two", 1, 1, 1}});
}

TEST(Reads, OfALayerUsedSeveralTimes) {
  // Forward a a b a (its bias once more within the stretch), backward a b a: the first use has an
  // input without gradient.
  expect_traffic(maker<Reused>(), {6}, false, {{"a", 2, 2, 1}, {"b", 1, 1, 1}});
}

TEST(Reads, OfCheckpointedSegments) {
  const auto make = [] {
    auto net = nn::sequential(nn::Linear(6, 9), nn::Tanh(), nn::Linear(9, 8), nn::Tanh(),
                              nn::Linear(8, 7), nn::Tanh(), nn::Linear(7, 3));
    net.checkpoint(2);  // segments 0-2 (Linear Tanh Linear) and 3-6
    return nn::share(net);
  };
  // The last segment keeps its own. The first is run again when backward comes to it: 0, then 2,
  // whose weight is read next, in the same stretch; 0 is not read by backward itself.
  expect_traffic(make, {6}, false,
                 {{"0", 1, 1, 1}, {"2", 1, 1, 1}, {"4", 1, 1, 1}, {"6", 1, 1, 1}});
}

}  // namespace
}  // namespace sg::dist
