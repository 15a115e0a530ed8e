#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "core/check.h"
#include "core/dtype.h"
#include "optim/adam.h"
#include "optim/optimizer.h"
#include "optim/sgd.h"
#include "tests/support/testing.h"

namespace sg::optim {

using test::error_of;

/// A parameter with its gradient and states, all random; states not negative, as Adam's second has
/// to be. For a parameter of bf16 all else is f32.
template <class P>
struct Problem {
  using T = compute_t<P>;
  std::vector<P> param;
  std::vector<T> grad;
  std::vector<std::vector<T>> states;

  Problem(const Optimizer& optimizer, std::size_t n, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    const auto fill = [&]<class V>(std::vector<V>& values) {
      for (std::size_t i = 0; i < n; ++i)
        values.push_back(static_cast<V>(static_cast<T>(normal(random))));
    };
    fill(param);
    fill(grad);
    for (int slot = 0; slot < optimizer.state_slots(); ++slot) {
      fill(states.emplace_back());
      for (T& value : states.back()) value *= value;
    }
  }

  /// Updates elements [begin, end) alone.
  void update(const Optimizer& optimizer, const StepValues& values, std::size_t begin,
              std::size_t end) {
    std::vector<std::span<T>> spans;
    for (auto& state : states) spans.push_back(std::span<T>(state).subspan(begin, end - begin));
    optimizer.update(std::span<P>(param).subspan(begin, end - begin),
                     std::span<const T>(grad).subspan(begin, end - begin), spans,
                     optimizer.defaults(), values);
  }
  void update(const Optimizer& optimizer, const StepValues& values) {
    update(optimizer, values, 0, param.size());
  }
  bool operator==(const Problem& other) const {
    return same(param, other.param) && states.size() == other.states.size() && [&] {
      for (std::size_t i = 0; i < states.size(); ++i)
        if (!same(states[i], other.states[i])) return false;
      return true;
    }();
  }

 private:
  template <class V>
  static bool same(const std::vector<V>& a, const std::vector<V>& b) {
    return a.size() == b.size() &&
           (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(V)) == 0);
  }
};

/// Every path through the loops.
inline std::vector<OptimizerPtr> all_optimizers() {
  return {sgd({.lr = 0.1, .weight_decay = 0.1}),
          sgd({.lr = 0.1, .momentum = 0.9, .dampening = 0.2}),
          sgd({.lr = 0.1, .momentum = 0.9, .weight_decay = 0.1, .nesterov = true}),
          adam({.lr = 0.01, .weight_decay = 0.1}), adamw({.lr = 0.01})};
}

}  // namespace sg::optim
