// An optimizer of your own, in one functor over elements. Threads, cuts, mean gradients, clipping,
// sharding and checkpoints come with it. Sign descent with momentum, whole:
//
//   struct SignSgd {
//     static constexpr const char* name = "signsgd";
//     static std::vector<std::string> hyper_names() { return {"lr", "momentum"}; }
//     static std::vector<std::string> state_names() { return {"momentum_buffer"}; }
//     static void check(const optim::Hyper& h) {
//       SG_CHECK(h.lr >= 0, "[signsgd] lr must be >= 0, got {}", h.lr);
//     }
//     template <class T>
//     static auto rule(const optim::Hyper& h, const optim::StepValues& v) {
//       return [lr = T(h.lr * v.lr_factor), mu = T(h.momentum)](T& p, T g, T& m) {
//         m = mu * m + (1 - mu) * g;
//         p -= lr * T((m > 0) - (m < 0));
//       };
//     }
//   };
//   auto optimizer = optim::elementwise<SignSgd>({.lr = 1e-4, .momentum = 0.9});
//
// The rule sees the mean, clipped gradient, and a reference to each state in the order of
// state_names() (four at most). It is compiled for the oldest processor; the library's own
// optimizers (optim/kernels) are for each instruction set.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>

#include "core/check.h"
#include "optim/spans.h"

namespace sg::optim {

template <class Rule>
class Elementwise final : public TypedOptimizer<Elementwise<Rule>> {
 public:
  explicit Elementwise(const Hyper& defaults)
      : Elementwise::TypedOptimizer(Rule::name, Rule::hyper_names(), Rule::state_names(),
                                    defaults) {
    check(defaults);
  }

 protected:
  void check(const Hyper& hyper) const override { Rule::check(hyper); }

 private:
  friend TypedOptimizer<Elementwise>;

  // The number of states is the number of arguments that the rule takes beyond the parameter and
  // the gradient.
  template <class T>
  void apply(std::span<T> param, std::span<const T> grad, States<T> state, const Hyper& hyper,
             const StepValues& values) const {
    const auto rule = Rule::template rule<T>(hyper, values);
    using F = decltype(rule);
    if constexpr (std::is_invocable_v<F, T&, T>)
      loop<0>(param, grad, state, values, rule);
    else if constexpr (std::is_invocable_v<F, T&, T, T&>)
      loop<1>(param, grad, state, values, rule);
    else if constexpr (std::is_invocable_v<F, T&, T, T&, T&>)
      loop<2>(param, grad, state, values, rule);
    else if constexpr (std::is_invocable_v<F, T&, T, T&, T&, T&>)
      loop<3>(param, grad, state, values, rule);
    else
      loop<4>(param, grad, state, values, rule);
  }

  template <std::size_t kStates, class T, class F>
  void loop(std::span<T> param, std::span<const T> grad, States<T> state, const StepValues& values,
            const F& rule) const {
    SG_CHECK(state.size() == kStates, "[{}] its rule takes {} states, state_names() has {}",
             this->name(), kStates, state.size());
    const auto scale = gradient_scale<T>(values.grad_divisor, values.clip_scale);
    std::array<T*, kStates> s{};
    for (std::size_t k = 0; k < kStates; ++k) s[k] = state[k].data();
    for_each_part(std::ssize(param), [&](std::int64_t begin, std::int64_t end) {
      T* p = param.data();
      const T* g = grad.data();
      [&]<std::size_t... k>(std::index_sequence<k...>) {
        for (std::int64_t i = begin; i < end; ++i) {
          const T mean = scale.divide ? g[i] / scale.divisor : g[i] * scale.reciprocal;
          rule(p[i], mean * scale.clip, s[k][i]...);
        }
      }
      (std::make_index_sequence<kStates>{});
    });
  }
};

/// The optimizer of `Rule`; throws what Rule::check throws.
template <class Rule>
OptimizerPtr elementwise(const Hyper& defaults = {}) {
  return std::make_shared<Elementwise<Rule>>(defaults);
}

}  // namespace sg::optim
