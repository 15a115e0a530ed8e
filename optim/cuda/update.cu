#include "optim/cuda/update.h"

#include "core/cuda/map.h"
#include "optim/kernels/rules.h"

namespace sg::cuda {
// Of core/cuda/context.h, which device code cannot include.
Launch on(const char* op, Device device);
const std::int64_t* found(Device device);
}  // namespace sg::cuda

namespace sg::optim::cuda {
namespace {

using kernels::AdamCoefficients;
using kernels::GradientScale;
using kernels::Momentum;
using kernels::SgdCoefficients;
using sg::cuda::for_each;

// Neighbouring values of type T, read and written at once. 16 bytes of the compute type.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Few {
  T values[kCount];
};

struct AdamRule {
  static constexpr int kStates = 2;
  template <class T>
  using Coefficients = AdamCoefficients<T>;
  template <class T>
  SG_HD static void apply(T& p, T g, T* states, const AdamCoefficients<T>& c) {
    if (c.scale.divide)
      kernels::adam_rule<true>(p, g, states[0], states[1], c);
    else
      kernels::adam_rule<false>(p, g, states[0], states[1], c);
  }
};

template <bool kDivide, class T>
SG_HD void apply_sgd(T& p, T g, T& buffer, const SgdCoefficients<T>& c) {
  if (c.momentum == T(0))
    kernels::sgd_rule<kDivide, Momentum::none>(p, g, buffer, c);
  else if (c.nesterov)
    kernels::sgd_rule<kDivide, Momentum::nesterov>(p, g, buffer, c);
  else
    kernels::sgd_rule<kDivide, Momentum::classic>(p, g, buffer, c);
}

struct SgdRule {
  static constexpr int kStates = 1;
  template <class T>
  using Coefficients = SgdCoefficients<T>;
  template <class T>
  SG_HD static void apply(T& p, T g, T* states, const SgdCoefficients<T>& c) {
    if (c.scale.divide)
      apply_sgd<true>(p, g, states[0], c);
    else
      apply_sgd<false>(p, g, states[0], c);
  }
};

// `kCount` neighbours to a thread: 16 bytes of the compute type where all spans allow it, else one.
template <class Rule, class P, class T, int kCount>
struct Update {
  P* param;
  const T* grad;
  T* states[Rule::kStates];
  std::int64_t n;
  const Block* blocks;
  const typename Rule::template Coefficients<T>* coefficients;
  const std::int64_t* found;

  SG_HD void operator()(std::int64_t i) const {
    const std::int64_t first = i * kCount;
    const Block block = blocks[first / Block::kElements];
    const int begin = static_cast<int>(first % Block::kElements);
    if (block.group == Block::kNobody || begin >= block.count || *found != 0) return;
    const auto c = coefficients[block.group];
    if (begin + kCount > block.count || first + kCount > n) {
      for (int k = 0; k < kCount && begin + k < block.count && first + k < n; ++k)
        one(first + k, c);
      return;
    }
    auto p = at(param, i);
    const auto g = at(grad, i);
    Few<T, kCount> s[Rule::kStates] = {};
    for (int j = 0; j < Rule::kStates; ++j)
      if (states[j] != nullptr) s[j] = at(states[j], i);
    for (int k = 0; k < kCount; ++k) {
      T value = static_cast<T>(p.values[k]), state[Rule::kStates];
      for (int j = 0; j < Rule::kStates; ++j) state[j] = s[j].values[k];
      Rule::apply(value, g.values[k], state, c);
      p.values[k] = static_cast<P>(value);
      for (int j = 0; j < Rule::kStates; ++j) s[j].values[k] = state[j];
    }
    at(param, i) = p;
    for (int j = 0; j < Rule::kStates; ++j)
      if (states[j] != nullptr) at(states[j], i) = s[j];
  }

 private:
  template <class V>
  SG_HD static auto& at(V* values, std::int64_t i) {
    using Plain = std::remove_const_t<V>;
    using Pack =
        std::conditional_t<std::is_const_v<V>, const Few<Plain, kCount>, Few<Plain, kCount>>;
    return reinterpret_cast<Pack*>(values)[i];
  }
  template <class C>
  SG_HD void one(std::int64_t i, const C& c) const {
    T value = static_cast<T>(param[i]), state[Rule::kStates] = {};
    for (int j = 0; j < Rule::kStates; ++j)
      if (states[j] != nullptr) state[j] = states[j][i];
    Rule::apply(value, grad[i], state, c);
    param[i] = static_cast<P>(value);
    for (int j = 0; j < Rule::kStates; ++j)
      if (states[j] != nullptr) states[j][i] = state[j];
  }
};

template <class Rule, class P, class T, int kCount>
void run(const sg::cuda::Launch& on, const Span& span, const std::int64_t* found) {
  Update<Rule, P, T, kCount> update{
      static_cast<P*>(span.param),
      static_cast<const T*>(span.grad),
      {},
      span.n,
      span.blocks,
      static_cast<const typename Rule::template Coefficients<T>*>(span.coefficients),
      found};
  for (int j = 0; j < Rule::kStates; ++j) update.states[j] = static_cast<T*>(span.states[j]);
  for_each(on, (span.n + kCount - 1) / kCount, update);
}

template <class Rule, class P, class T>
void choose_pack(const sg::cuda::Launch& on, const Span& span, const std::int64_t* found) {
  constexpr int kCount = 16 / sizeof(T);
  std::uintptr_t bits = reinterpret_cast<std::uintptr_t>(span.param) * (sizeof(T) / sizeof(P)) |
                        reinterpret_cast<std::uintptr_t>(span.grad);
  for (const void* state : span.states) bits |= reinterpret_cast<std::uintptr_t>(state);
  if (bits % 16 == 0)
    run<Rule, P, T, kCount>(on, span, found);
  else
    run<Rule, P, T, 1>(on, span, found);
}

template <class Rule>
void choose_types(const sg::cuda::Launch& on, const Span& span, const std::int64_t* found) {
  if (span.dtype == DType::f64)
    choose_pack<Rule, double, double>(on, span, found);
  else if (span.param_dtype == DType::bf16)
    choose_pack<Rule, bf16, float>(on, span, found);
  else
    choose_pack<Rule, float, float>(on, span, found);
}

// A block of 64 to a thread, its eight lanes and their tree as on the CPU.
template <bool kDivide, class T>
struct Squares {
  const T* grad;
  std::int64_t n;
  GradientScale<T> scale;
  double* sums;
  SG_HD void operator()(std::int64_t block) const {
    constexpr int kLanes = 8;
    double lane[kLanes] = {};
    const std::int64_t begin = block * kernels::kSquaresBlock;
    for (int row = 0; row < kernels::kSquaresBlock; row += kLanes)
      for (int j = 0; j < kLanes; ++j) {
        const std::int64_t at = begin + row + j;
        const T value = at < n ? grad[at] : T(0);
        const double g = kernels::mean_gradient<kDivide>(value, scale);
        lane[j] += g * g;
      }
    sums[block] =
        ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
  }
};

}  // namespace

void update(kernels::Rule rule, const char* name, Device device, const Span& span) {
  const sg::cuda::Launch launch = sg::cuda::on(name, device);
  const std::int64_t* const found = sg::cuda::found(device);
  if (rule == kernels::Rule::adam)
    choose_types<AdamRule>(launch, span, found);
  else if (rule == kernels::Rule::sgd)
    choose_types<SgdRule>(launch, span, found);
}

template <class T>
void block_squares(const char* name, Device device, const T* grad, std::int64_t n,
                   const GradientScale<T>& scale, double* sums) {
  const sg::cuda::Launch launch = sg::cuda::on(name, device);
  const std::int64_t blocks = (n + kernels::kSquaresBlock - 1) / kernels::kSquaresBlock;
  if (scale.divide)
    for_each(launch, blocks, Squares<true, T>{grad, n, scale, sums});
  else
    for_each(launch, blocks, Squares<false, T>{grad, n, scale, sums});
}

template void block_squares(const char*, Device, const float*, std::int64_t,
                            const GradientScale<float>&, double*);
template void block_squares(const char*, Device, const double*, std::int64_t,
                            const GradientScale<double>&, double*);

}  // namespace sg::optim::cuda
