// What the optimizers' updates share: coefficients in the element type, and the walk over a span
// with the rank's threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "core/parallel.h"
#include "optim/kernels/update.h"
#include "optim/optimizer.h"

namespace sg::optim {

/// Spans are cut for threads at multiples of this: no two threads write one cache line, blocks of
/// squares stay whole.
inline constexpr std::int64_t kUpdateBlock = 64;
/// Elements below which a further thread costs more than it saves.
inline constexpr std::int64_t kUpdateGrain = 8192;

static_assert(kUpdateBlock % kernels::kSquaresBlock == 0);

/// f(begin, end) over parts of [0, n).
template <class F>
void for_each_part(std::int64_t n, F&& f) {
  parallel_for((n + kUpdateBlock - 1) / kUpdateBlock, kUpdateGrain / kUpdateBlock,
               [&](std::int64_t begin, std::int64_t end) {
                 f(begin * kUpdateBlock, std::min(end * kUpdateBlock, n));
               });
}

/// All of a flat tensor, wherever it lives: of one on a GPU the CPU must not read.
template <class T>
std::span<T> span_of(const Tensor& flat) {
  SG_CHECK(flat.dtype() == dtype_of<T> && flat.is_contiguous(),
           "[optim] {} is not a contiguous {} tensor", describe(flat), name_of(dtype_of<T>));
  return {static_cast<T*>(flat.raw_data()), static_cast<std::size_t>(flat.numel())};
}

template <class T>
kernels::GradientScale<T> gradient_scale(double divisor, double clip = 1) {
  int exponent = 0;
  const T d = static_cast<T>(divisor);
  const bool exact = std::frexp(d, &exponent) == T(0.5) && exponent > -100 && exponent < 100;
  return {.divisor = d,
          .clip = static_cast<T>(clip),
          .reciprocal = exact ? 1 / d : T(0),
          .divide = !exact};
}

/// An optimizer whose update is one template for f32 and f64: Derived has, for T = float and
/// double,
///   void apply(std::span<T> param, std::span<const T> grad, States<T> state, const Hyper& hyper,
///              const StepValues& values) const
template <class Derived>
class TypedOptimizer : public Optimizer {
 protected:
  using Optimizer::Optimizer;
  void run(std::span<float> param, std::span<const float> grad, States<float> state,
           const Hyper& hyper, const StepValues& values) const final {
    static_cast<const Derived*>(this)->apply(param, grad, state, hyper, values);
  }
  void run(std::span<double> param, std::span<const double> grad, States<double> state,
           const Hyper& hyper, const StepValues& values) const final {
    static_cast<const Derived*>(this)->apply(param, grad, state, hyper, values);
  }
};

/// Appends the bytes of `c`.
template <class C>
void append_bytes(const C& c, std::vector<std::byte>& to) {
  static_assert(std::is_trivially_copyable_v<C>);
  const auto* const from = reinterpret_cast<const std::byte*>(&c);
  to.insert(to.end(), from, from + sizeof c);
}

template <class T>
const kernels::UpdateLoops<T>& update_loops() {
  return kernels::loops_of<T>(kernels::optimizer_kernels());
}

}  // namespace sg::optim
