// An optimizer that the library does not have, written as a stranger would: Lion
// (arXiv:2302.06675), one state.
#include "optim/elementwise.h"

#include "core/rank.h"
#include "tests/optim/support.h"

namespace sg::optim {
namespace {

struct Lion {
  static constexpr const char* name = "lion";
  static std::vector<std::string> hyper_names() { return {"lr", "beta1", "beta2", "weight_decay"}; }
  static std::vector<std::string> state_names() { return {"exp_avg"}; }
  static void check(const Hyper& h) { SG_CHECK(h.lr >= 0, "[lion] lr must be >= 0, got {}", h.lr); }
  template <class T>
  static auto rule(const Hyper& h, const StepValues& v) {
    return [lr = T(h.lr * v.lr_factor), decay = T(h.weight_decay), beta1 = T(h.beta1),
            beta2 = T(h.beta2)](T& p, T g, T& m) {
      const T direction = beta1 * m + (1 - beta1) * g;
      p -= lr * (T((direction > 0) - (direction < 0)) + decay * p);
      m = beta2 * m + (1 - beta2) * g;
    };
  }
};

TEST(Elementwise, OwnOptimizer) {
  const OptimizerPtr lion =
      elementwise<Lion>({.lr = 0.5, .weight_decay = 0.25, .beta1 = 0.5, .beta2 = 0.75});
  std::vector<double> param{1, 2, 4}, m{0, 1, -2};
  const std::vector<double> grad{4, -8, 0};
  const std::vector<std::span<double>> states{m};
  lion->update(param, std::span<const double>(grad), states, lion->defaults(), {.grad_divisor = 4});
  EXPECT_EQ(param,
            (std::vector<double>{1 - 0.5 * (1 + 0.25), 2 - 0.5 * (-1 + 0.5), 4 - 0.5 * (-1 + 1)}));
  EXPECT_EQ(m, (std::vector<double>{0.25, 0.25, -1.5}));
  EXPECT_EQ(error_of([] { elementwise<Lion>({.lr = -1}); }), "[lion] lr must be >= 0, got -1");
  EXPECT_EQ(error_of([&] { lion->group({.eps = 1}); }),
            "[lion] a parameter group sets eps, but lion has only lr, beta1, beta2, weight_decay");
}

TEST(Elementwise, CutsAndThreads) {
  const OptimizerPtr lion = elementwise<Lion>();
  const StepValues values{.step = 2, .grad_divisor = 3, .clip_scale = 0.5};
  Problem<float> whole(*lion, 50001, 1), cut = whole;
  Rank three(0, 1, 3, 0);
  const RankScope scope(three);
  whole.update(*lion, values);
  cut.update(*lion, values, 0, 777);
  cut.update(*lion, values, 777, 50001);
  EXPECT_TRUE(whole == cut);
}

// The library's SGD in the form of the header's example: the same bits from both ways of writing
// it.
struct PlainSgd {
  static constexpr const char* name = "plain";
  static std::vector<std::string> hyper_names() { return {"lr", "weight_decay"}; }
  static std::vector<std::string> state_names() { return {}; }
  static void check(const Hyper&) {}
  template <class T>
  static auto rule(const Hyper& h, const StepValues& v) {
    return [lr = T(h.lr * v.lr_factor), l2 = T(h.weight_decay)](T& p, T g) {
      p = p - lr * (g + l2 * p);
    };
  }
};

TEST(Elementwise, AgreesWithTheLibrarysSgd) {
  const OptimizerPtr mine = elementwise<PlainSgd>({.lr = 0.1, .weight_decay = 0.3});
  const OptimizerPtr ours = sgd({.lr = 0.1, .weight_decay = 0.3});
  for (const double divisor : {1.0, 2.0, 5.0}) {
    Problem<float> a(*mine, 1001, 2), b(*ours, 1001, 2);
    a.update(*mine, {.grad_divisor = divisor, .clip_scale = 0.5});
    b.update(*ours, {.grad_divisor = divisor, .clip_scale = 0.5});
    EXPECT_TRUE(a == b) << divisor;
  }
}

struct Mismatched : PlainSgd {
  static std::vector<std::string> state_names() { return {"extra"}; }
};

TEST(Elementwise, RuleAndStateNamesMustAgree) {
  const OptimizerPtr wrong = elementwise<Mismatched>();
  Problem<float> problem(*wrong, 5, 3);
  EXPECT_EQ(error_of([&] { problem.update(*wrong, {}); }),
            "[plain] its rule takes 0 states, state_names() has 1");
}

}  // namespace
}  // namespace sg::optim
