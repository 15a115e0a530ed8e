// The updates against torch.optim, and the claim that their bits depend on nothing but the numbers.
#include <cmath>
#include <fstream>
#include <limits>

#include <nlohmann/json.hpp>

#include "core/rank.h"
#include "optim/kernels/update.h"
#include "optim/update.h"
#include "tests/optim/support.h"

namespace sg::optim {
namespace {

using nlohmann::json;

OptimizerPtr make(const std::string& name, const json& o) {
  if (name == "sgd")
    return sgd({.lr = o.value("lr", 1e-3),
                .momentum = o.value("momentum", 0.0),
                .dampening = o.value("dampening", 0.0),
                .weight_decay = o.value("weight_decay", 0.0),
                .nesterov = o.value("nesterov", false)});
  const AdamOptions defaults;
  const AdamOptions options{.lr = o.value("lr", defaults.lr),
                            .beta1 = o.value("beta1", defaults.beta1),
                            .beta2 = o.value("beta2", defaults.beta2),
                            .eps = o.value("eps", defaults.eps),
                            .weight_decay = o.value("weight_decay", defaults.weight_decay)};
  if (name == "adam") return adam(options);
  return adamw({.lr = options.lr,
                .beta1 = options.beta1,
                .beta2 = options.beta2,
                .eps = options.eps,
                .weight_decay = o.value("weight_decay", AdamWOptions().weight_decay)});
}

// Both round every operation, in another order here and there: errors are units in the last place
// of the largest value that the element has had.
template <class T>
void expect_close(std::span<const T> got, const std::vector<T>& expected, std::vector<T>& largest,
                  const std::string& what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i) {
    largest[i] = std::max(largest[i], std::abs(expected[i]));
    EXPECT_NEAR(got[i], expected[i], 6 * std::numeric_limits<T>::epsilon() * largest[i])
        << what << ", element " << i;
  }
}

template <class T>
void follow_updates(const json& run) {
  const OptimizerPtr optimizer = make(run["optimizer"], run["options"]);
  auto param = run["initial"].get<std::vector<T>>();
  const std::size_t n = param.size();
  std::vector<std::vector<T>> states(optimizer->state_names().size(), std::vector<T>(n));
  std::vector<std::vector<T>> largest(states.size() + 1, std::vector<T>(n));
  largest[0] = param;
  for (T& value : largest[0]) value = std::abs(value);
  StepValues values{.step = 0};
  for (const json& step : run["steps"]) {
    ++values.step;
    const auto grad = step["grad"].get<std::vector<T>>();
    const std::vector<std::span<T>> spans(states.begin(), states.end());
    optimizer->update(param, std::span<const T>(grad), spans, optimizer->defaults(), values);
    const std::string where = run["optimizer"].get<std::string>() + " " + run["options"].dump() +
                              " " + run["dtype"].get<std::string>() + ", step " +
                              std::to_string(values.step);
    expect_close<T>(param, step["param"].get<std::vector<T>>(), largest[0], where);
    ASSERT_EQ(step["state"].size(), states.size()) << where;
    for (std::size_t i = 0; i < states.size(); ++i) {
      const std::string& name = optimizer->state_names()[i];
      expect_close<T>(states[i], step["state"][name].get<std::vector<T>>(), largest[i + 1],
                      where + ", " + name);
    }
  }
}

TEST(Update, FollowsTorch) {
  std::ifstream file(SG_TEST_DATA "/optim.json");
  ASSERT_TRUE(file) << SG_TEST_DATA "/optim.json is missing; tests/golden/optim.py writes it";
  const json runs = json::parse(file)["updates"];
  ASSERT_GE(runs.size(), 40u);
  for (const json& run : runs)
    run["dtype"] == "f32" ? follow_updates<float>(run) : follow_updates<double>(run);
}

template <class T>
class UpdateBits : public testing::Test {};
using Types = testing::Types<float, double, bf16>;
using LoopTypes = testing::Types<float, double>;
TYPED_TEST_SUITE(UpdateBits, Types);

TYPED_TEST(UpdateBits, DoNotDependOnTheCut) {
  std::mt19937 random(5);
  for (const OptimizerPtr& optimizer : all_optimizers())
    for (const double divisor : {1.0, 4.0, 3.0})
      for (const std::size_t n : {1, 15, 16, 17, 63, 64, 65, 500, 1027}) {
        const StepValues values{
            .step = 3, .grad_divisor = divisor, .clip_scale = 0.7, .lr_factor = 0.5};
        Problem<TypeParam> whole(*optimizer, n, 1), cut = whole;
        whole.update(*optimizer, values);
        for (std::size_t begin = 0, end; begin < n; begin = end) {
          end = std::min<std::size_t>(n, begin + 1 + random() % 70);
          cut.update(*optimizer, values, begin, end);
        }
        EXPECT_TRUE(cut == whole) << optimizer->name() << " of " << n << ", divisor " << divisor;
      }
}

TYPED_TEST(UpdateBits, DoNotDependOnThreads) {
  constexpr std::size_t kSize = 100003;  // enough for twelve threads
  for (const OptimizerPtr& optimizer : all_optimizers()) {
    const StepValues values{.step = 2, .grad_divisor = 6};
    const Problem<TypeParam> before(*optimizer, kSize, 2);
    Rank one(0, 1, 1, 0);
    Problem<TypeParam> expected = before;
    {
      const RankScope scope(one);
      expected.update(*optimizer, values);
    }
    EXPECT_FALSE(expected == before);
    for (const int threads : {2, 3, 7}) {
      Rank rank(0, 1, threads, 0);
      const RankScope scope(rank);
      Problem<TypeParam> got = before;
      got.update(*optimizer, values);
      EXPECT_TRUE(got == expected) << optimizer->name() << " on " << threads << " threads";
    }
  }
}

// The mean is g / divisor rounded once, the clipped gradient that times clip_scale: doing so
// beforehand is the same.
TYPED_TEST(UpdateBits, ScaleGradientsAsDefined) {
  using T = compute_t<TypeParam>;
  for (const OptimizerPtr& optimizer : all_optimizers())
    for (const double divisor : {1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 1024.0, 1e30})
      for (const double clip : {1.0, 0.3}) {
        Problem<TypeParam> got(*optimizer, 333, 3), expected = got;
        for (T& g : expected.grad) g = g / static_cast<T>(divisor) * static_cast<T>(clip);
        got.update(*optimizer, {.step = 4, .grad_divisor = divisor, .clip_scale = clip});
        expected.update(*optimizer, {.step = 4});
        EXPECT_TRUE(got == expected) << optimizer->name() << " / " << divisor << " * " << clip;
      }
}

#if SG_ISA_X86
template <class T>
class UpdateLoopBits : public testing::Test {};
TYPED_TEST_SUITE(UpdateLoopBits, LoopTypes);

// Only correctly rounded operations, so not close but equal.
TYPED_TEST(UpdateLoopBits, AreThoseOfEveryInstructionSet) {
  using T = TypeParam;
  using kernels::Isa;
  constexpr std::int64_t kSize = 1003;
  const auto run = [&](const kernels::OptimizerKernels& table) {
    const auto& loops = kernels::loops_of<T>(table);
    std::vector<std::uint8_t> bytes;
    const auto keep = [&](const auto& values) {
      const auto* begin = reinterpret_cast<const std::uint8_t*>(values.data());
      bytes.insert(bytes.end(), begin, begin + values.size() * sizeof(values[0]));
    };
    for (const bool divide : {false, true}) {
      const kernels::GradientScale<T> scale{
          .divisor = 3, .clip = T(0.9), .reciprocal = T(0.25), .divide = divide};
      Problem<T> a(*adam(), kSize, 4), s(*sgd({.momentum = 0.9}), kSize, 5), plain = s;
      loops.adam(
          a.param.data(), a.grad.data(), a.states[0].data(), a.states[1].data(), kSize,
          {scale, T(0.01), T(0.99), T(0.1), T(0.9), T(0.1), T(0.999), T(0.001), T(1.5), T(1e-8)});
      for (const bool nesterov : {false, true})
        loops.sgd(s.param.data(), s.grad.data(), s.states[0].data(), kSize,
                  {scale, T(0.1), T(0.01), T(0.9), T(0.9), T(0.8), nesterov});
      loops.sgd(plain.param.data(), plain.grad.data(), nullptr, kSize,
                {scale, T(0.1), T(0.01), T(0), T(0), T(1), false});
      std::vector<double> squares((kSize + 63) / 64);
      loops.block_squares(plain.grad.data(), kSize, scale, squares.data());
      for (const auto* values :
           {&a.param, &a.states[0], &a.states[1], &s.param, &s.states[0], &plain.param})
        keep(*values);
      keep(squares);
    }
    return bytes;
  };
  const auto expected = run(kernels::v2::optimizer_kernels_table());
  if (kernels::active_isa() >= Isa::v3) {
    EXPECT_TRUE(run(kernels::v3::optimizer_kernels_table()) == expected);
  }
  if (kernels::active_isa() >= Isa::v4) {
    EXPECT_TRUE(run(kernels::v4::optimizer_kernels_table()) == expected);
  }
  if (kernels::active_isa() == Isa::v2)
    GTEST_SKIP() << "this processor (or SHARDGRAD_ISA) has only x86-64-v2";
}
#endif

TEST(Update, FirstMomentumStepForgetsTheBuffer) {
  const OptimizerPtr optimizer = sgd({.lr = 1, .momentum = 0.9, .dampening = 0.5});
  std::vector<float> param{1}, buffer{7};
  const std::vector<float> grad{0.25};
  const std::vector<std::span<float>> states{buffer};
  optimizer->update(param, std::span<const float>(grad), states, optimizer->defaults(),
                    {.step = 1});
  EXPECT_EQ(buffer[0], 0.25f);
  EXPECT_EQ(param[0], 0.75f);
}

TEST(Update, LearningRateFactor) {
  for (const OptimizerPtr& optimizer : all_optimizers()) {
    Problem<float> got(*optimizer, 100, 6), expected = got;
    got.update(*optimizer, {.step = 2, .lr_factor = 0.25});
    std::vector<std::span<float>> spans(expected.states.begin(), expected.states.end());
    optimizer->update(expected.param, std::span<const float>(expected.grad), spans,
                      optimizer->group({.lr = optimizer->defaults().lr / 4}), {.step = 2});
    EXPECT_TRUE(got == expected) << optimizer->name();
  }
}

TEST(Update, SkippedStepChangesNothing) {
  for (const OptimizerPtr& optimizer : all_optimizers()) {
    Problem<float> before(*optimizer, 100, 7), after = before;
    after.grad[3] = std::numeric_limits<float>::quiet_NaN();
    after.update(*optimizer, {.skip = true});
    EXPECT_TRUE(after == before) << optimizer->name();
  }
}

TEST(Update, EmptySpansAreFine) {
  for (const OptimizerPtr& optimizer : all_optimizers()) {
    Problem<float> nothing(*optimizer, 0, 8);
    EXPECT_NO_THROW(nothing.update(*optimizer, {}));
  }
}

TEST(Update, GroupWithoutMomentumLeavesTheBufferAlone) {
  const OptimizerPtr optimizer = sgd({.lr = 0.5, .momentum = 0.9});
  std::vector<float> param{1}, buffer{7};
  const std::vector<float> grad{0.25};
  const std::vector<std::span<float>> states{buffer};
  optimizer->update(param, std::span<const float>(grad), states, optimizer->group({.momentum = 0}),
                    {.step = 2});
  EXPECT_EQ(buffer[0], 7.0f);
  EXPECT_EQ(param[0], 0.875f);
}

TEST(Update, RefusesSpansThatDoNotFit) {
  const OptimizerPtr a = adam();
  std::vector<float> four(4), three(3);
  const std::vector<std::span<float>> fit{four, four}, one{four}, misfit{four, three};
  const auto run = [&](std::span<const float> grad, States<float> states,
                       const StepValues& values) {
    return error_of(
        [&] { a->update(std::span<float>(four), grad, states, a->defaults(), values); });
  };
  EXPECT_EQ(run(three, fit, {}), "[adam] 3 gradients for 4 parameters");
  EXPECT_EQ(run(four, one, {}), "[adam] needs 2 states (exp_avg, exp_avg_sq), got 1");
  EXPECT_EQ(run(four, misfit, {}), "[adam] state exp_avg_sq has 3 elements for 4 parameters");
  EXPECT_EQ(run(four, fit, {.step = 0}), "[adam] steps count from 1, got 0");
  EXPECT_EQ(run(four, fit, {.grad_divisor = 0}), "[adam] grad_divisor must be > 0, got 0");
}

TEST(Update, RefusesSectionsThatDoNotFit) {
  const OptimizerPtr s = sgd();
  const Hyper h = s->defaults();
  const Tensor param = Tensor::zeros({200});
  EXPECT_EQ(error_of([&] { Update(adam(), param, {param}, {}); }),
            "[adam] needs 2 states (exp_avg, exp_avg_sq), got 1");
  EXPECT_EQ(error_of([&] { Update(s, param, {}, {{0, 70, h}, {64, 10, h}}); }),
            "[sgd] a section begins at 64, within the one before, which ends at 70");
  EXPECT_EQ(error_of([&] { Update(s, param, {}, {{128, 73, h}}); }),
            "[sgd] sections end at 201 of 200 elements");
}

TEST(Hyperparameters, OutOfRange) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(error_of([] { adam({.lr = -1}); }), "[adam] lr must be >= 0, got -1");
  EXPECT_EQ(error_of([&] { adam({.lr = nan}); }), "[adam] lr must be >= 0, got nan");
  EXPECT_EQ(error_of([] { adam({.beta1 = 1}); }), "[adam] beta1 must be in [0, 1), got 1");
  EXPECT_EQ(error_of([] { adamw({.beta2 = -0.5}); }), "[adamw] beta2 must be in [0, 1), got -0.5");
  EXPECT_EQ(error_of([] { adamw({.eps = -1}); }), "[adamw] eps must be >= 0, got -1");
  EXPECT_EQ(error_of([] { adam({.weight_decay = -0.1}); }),
            "[adam] weight_decay must be >= 0, got -0.1");
  EXPECT_EQ(error_of([] { sgd({.lr = -0.5}); }), "[sgd] lr must be >= 0, got -0.5");
  EXPECT_EQ(error_of([] { sgd({.momentum = -1}); }), "[sgd] momentum must be >= 0, got -1");
  EXPECT_EQ(error_of([] { sgd({.weight_decay = -2}); }), "[sgd] weight_decay must be >= 0, got -2");
  EXPECT_EQ(error_of([] { sgd({.nesterov = true}); }),
            "[sgd] nesterov needs momentum > 0 and dampening 0, got momentum 0 and dampening 0");
  EXPECT_EQ(
      error_of([] { sgd({.momentum = 0.9, .dampening = 0.1, .nesterov = true}); }),
      "[sgd] nesterov needs momentum > 0 and dampening 0, got momentum 0.9 and dampening 0.1");
}

TEST(Hyperparameters, Groups) {
  const OptimizerPtr a = adamw({.lr = 0.1, .weight_decay = 0.2});
  Hyper expected = a->defaults();
  EXPECT_EQ(a->group({}), expected);
  expected.weight_decay = 0;
  EXPECT_EQ(a->group({.weight_decay = 0}), expected);
  EXPECT_EQ(error_of([&] { a->group({.lr = -2}); }), "[adamw] lr must be >= 0, got -2");
  EXPECT_EQ(error_of([&] { a->group({.momentum = 0.9}); }),
            "[adamw] a parameter group sets momentum, but adamw has only lr, beta1, beta2, eps, "
            "weight_decay");
  EXPECT_EQ(error_of([&] { sgd()->group({.beta1 = 0.9}); }),
            "[sgd] a parameter group sets beta1, but sgd has only lr, momentum, dampening, "
            "weight_decay, nesterov");
  EXPECT_EQ(error_of([&] { sgd()->group({.momentum = 0.9}); }),
            "[sgd] a parameter group sets momentum 0.9, but the optimizer was made without and has "
            "no state for it; "
            "give sgd itself a momentum");
}

TEST(Hyperparameters, StatesAreNamedAsInTorch) {
  EXPECT_EQ(adam()->state_names(), (std::vector<std::string>{"exp_avg", "exp_avg_sq"}));
  EXPECT_EQ(adamw()->state_slots(), 2);
  EXPECT_EQ(sgd()->state_slots(), 0);
  EXPECT_EQ(sgd({.momentum = 0.9})->state_names(), std::vector<std::string>{"momentum_buffer"});
}

}  // namespace
}  // namespace sg::optim
