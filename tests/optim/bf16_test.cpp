// Parameters in bf16: the arithmetic is f32's, and the new parameter is rounded once.
#include <cmath>

#include "core/rank.h"
#include "optim/elementwise.h"
#include "optim/update.h"
#include "tests/optim/support.h"

namespace sg::optim {
namespace {

TEST(Bf16, IsTheUpdateInF32RoundedOnce) {
  for (const OptimizerPtr& optimizer : all_optimizers()) {
    Problem<bf16> got(*optimizer, 9001, 1);  // two tiles and a bit
    for (int step = 1; step <= 4; ++step) {
      const StepValues values{.step = step, .grad_divisor = 3, .clip_scale = 0.7};
      std::vector<float> wide(got.param.begin(), got.param.end());
      std::vector<std::vector<float>> states = got.states;
      const std::vector<std::span<float>> spans(states.begin(), states.end());
      optimizer->update(wide, std::span<const float>(got.grad), spans, optimizer->defaults(),
                        values);
      got.update(*optimizer, values);
      EXPECT_EQ(got.states, states);
      int changed = 0;
      for (std::size_t i = 0; i < wide.size(); ++i) {
        ASSERT_EQ(got.param[i].bits, bf16(wide[i]).bits)
            << optimizer->name() << " step " << step << " element " << i;
        changed += float(got.param[i]) != wide[i];
      }
      EXPECT_GT(changed, 8000) << "the values do not show the rounding";
    }
  }
}

// torch.optim.AdamW's definition in double; each step starts from the parameter as it was rounded.
TEST(Bf16, FollowsAdamWsDefinition) {
  const AdamWOptions o{.lr = 0.01, .weight_decay = 0.1};
  const OptimizerPtr optimizer = adamw(o);
  Problem<bf16> got(*optimizer, 500, 2);
  for (auto& state : got.states) std::fill(state.begin(), state.end(), 0.0f);
  std::vector<double> m(500), v(500);
  for (int step = 1; step <= 5; ++step) {
    const std::vector<bf16> before = got.param;
    for (float& g : got.grad) g = -0.75f * g + 0.01f * static_cast<float>(step);
    got.update(*optimizer, {.step = step});
    for (std::size_t i = 0; i < before.size(); ++i) {
      const double g = static_cast<double>(got.grad[i]);
      m[i] = o.beta1 * m[i] + (1 - o.beta1) * g;
      v[i] = o.beta2 * v[i] + (1 - o.beta2) * g * g;
      const double m_hat = m[i] / (1 - std::pow(o.beta1, step));
      const double v_hat = v[i] / (1 - std::pow(o.beta2, step));
      const double exact = static_cast<double>(before[i]) * (1 - o.lr * o.weight_decay) -
                           o.lr * m_hat / (std::sqrt(v_hat) + o.eps);
      // Eight bits: rounding moves it by at most half a unit, of 2^-7 of its power of two.
      const double half_unit = std::ldexp(1.0, std::ilogb(exact) - 8);
      ASSERT_NEAR(static_cast<double>(got.param[i]), exact, half_unit + 1e-5) << step << " " << i;
      ASSERT_NEAR(got.states[0][i], m[i], 1e-6 + 1e-6 * std::abs(m[i]));
      ASSERT_NEAR(got.states[1][i], v[i], 1e-6 + 1e-6 * v[i]);
    }
  }
}

TEST(Bf16, ChangesBelowHalfAUnitAreLost) {
  const OptimizerPtr optimizer = sgd({.lr = 1});
  const auto after_100 = [&](float grad) {
    std::vector<bf16> param{bf16(1.0f)};
    const std::vector<float> g{grad};
    for (int step = 1; step <= 100; ++step)
      optimizer->update(param, std::span<const float>(g), {}, optimizer->defaults(),
                        {.step = step});
    return float(param[0]);
  };
  // From 1 the next number down is 1 - 2^-8.
  EXPECT_EQ(after_100(0.0019f), 1.0f) << "less than 2^-9 of 1";
  EXPECT_LT(after_100(0.0020f), 0.7f);
}

TEST(Bf16, NotANumberStaysOne) {
  const OptimizerPtr optimizer = adam();
  Problem<bf16> problem(*optimizer, 100, 3);
  problem.grad[7] = std::nanf("");
  problem.update(*optimizer, {});
  for (std::size_t i = 0; i < 100; ++i)
    EXPECT_EQ(std::isnan(float(problem.param[i])), i == 7) << i;
}

// Of one's own; it takes a state that it does not name.
struct Misnamed {
  static constexpr const char* name = "misnamed";
  static std::vector<std::string> hyper_names() { return {"lr"}; }
  static std::vector<std::string> state_names() { return {}; }
  static void check(const Hyper&) {}
  template <class T>
  static auto rule(const Hyper&, const StepValues&) {
    return [](T& p, T g, T& m) { p = m = g; };
  }
};

struct Sign {
  static constexpr const char* name = "sign";
  static std::vector<std::string> hyper_names() { return {"lr"}; }
  static std::vector<std::string> state_names() { return {"last"}; }
  static void check(const Hyper&) {}
  template <class T>
  static auto rule(const Hyper& h, const StepValues&) {
    return [lr = T(h.lr)](T& p, T g, T& last) {
      p -= lr * T((g > 0) - (g < 0));
      last = g;
    };
  }
};

TEST(Bf16, RulesOfYourOwnNeedNoLine) {
  Rank three(0, 1, 3, 0);
  const RankScope scope(three);
  const OptimizerPtr sign = elementwise<Sign>({.lr = 0.125});
  Problem<bf16> problem(*sign, 50001, 4);
  const Problem<bf16> before = problem;
  problem.update(*sign, {});
  for (std::size_t i = 0; i < before.param.size(); ++i) {
    const float step = before.grad[i] > 0 ? 0.125f : -0.125f;
    ASSERT_EQ(problem.param[i].bits, bf16(float(before.param[i]) - step).bits) << i;
    ASSERT_EQ(problem.states[0][i], before.grad[i]);
  }
  // What it throws on a thread of OpenMP's arrives here.
  const OptimizerPtr misnamed = elementwise<Misnamed>();
  Problem<bf16> large(*misnamed, 100003, 5);
  EXPECT_EQ(error_of([&] { large.update(*misnamed, {}); }),
            "[misnamed] its rule takes 1 states, state_names() has 0");
}

TEST(Bf16, SkippedStepsAndEmptySpansChangeNothing) {
  const OptimizerPtr optimizer = adam();
  Problem<bf16> before(*optimizer, 100, 6), after = before, nothing(*optimizer, 0, 6);
  after.update(*optimizer, {.skip = true});
  EXPECT_TRUE(after == before);
  EXPECT_NO_THROW(nothing.update(*optimizer, {}));
}

TEST(Bf16, TensorsAndWhatDoesNotFit) {
  const OptimizerPtr optimizer = sgd({.lr = 0.5});
  const Tensor param = Tensor::full({4}, 2, DType::bf16), grad = Tensor::full({4}, 1);
  Update update(optimizer, param, {}, {{0, 4, optimizer->defaults()}});
  update.run(grad);
  EXPECT_EQ(param.dtype(), DType::bf16);
  EXPECT_EQ(param.to_doubles(), std::vector<double>(4, 1.5));
  const Tensor half = grad.to(DType::bf16);
  EXPECT_EQ(error_of([&] { update.run(half); }),
            "[sgd] gradients are bf16 [4] for parameters bf16 [4]");
  EXPECT_EQ(error_of([&] { Update(adam(), param, {grad, half}, {}); }),
            "[adam] state exp_avg_sq is bf16 [4] for parameters bf16 [4]");
  EXPECT_EQ(error_of([&] { Update(optimizer, grad.to(DType::f16), {}, {}); }),
            "[sgd] parameters are f16 [4]; they are f32, f64 or bf16, so keep a master copy");
  std::vector<bf16> four(4);
  const std::vector<float> three(3);
  EXPECT_EQ(error_of([&] {
              optimizer->update(four, std::span<const float>(three), {}, optimizer->defaults(), {});
            }),
            "[sgd] 3 gradients for 4 parameters");
}

}  // namespace
}  // namespace sg::optim
