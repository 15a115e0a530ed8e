// Plain loops that the compiler vectorizes: one pass over memory. Non-temporal stores were slower,
// since the lines are read in any case. Prefetching in all streams is what the hardware does not
// manage by itself: it took Adam from 0.84 to 1.0 of an in-place read-modify-write of as many
// bytes, the squares from 0.55 to 0.7 of a plain read (bench/).
#include "optim/kernels/rules.h"

namespace sg::kernels::SG_ISA {
namespace {

constexpr std::int64_t kStep = 64;  // elements between prefetches
static_assert(kStep == kSquaresBlock);

/// Asks for the lines of kStep elements, `kAhead` bytes on; past the end of a span that is only a
/// hint without effect.
template <class T>
inline void prefetch(const T* at) {
  constexpr std::uintptr_t kAhead = 2048, kLine = 64;
  const auto from = reinterpret_cast<std::uintptr_t>(at) + kAhead;
  for (std::uintptr_t byte = 0; byte < kStep * sizeof(T); byte += kLine)
    __builtin_prefetch(reinterpret_cast<const void*>(from + byte));
}

template <bool kDivide, Momentum kMomentum, class T>
inline void sgd_part(T* param, const T* grad, T* buffer, std::int64_t n,
                     const SgdCoefficients<T>& c) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i)
    sgd_rule<kDivide, kMomentum>(param[i], grad[i], buffer[i], c);
}

// Coefficients come by value: the stores to the spans then cannot be taken for changes of them.
template <bool kDivide, Momentum kMomentum, class T>
void sgd_loop(T* param, const T* grad, T* buffer, std::int64_t n, const SgdCoefficients<T> c) {
  std::int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    prefetch(param + i);
    prefetch(grad + i);
    if constexpr (kMomentum != Momentum::none) prefetch(buffer + i);
    sgd_part<kDivide, kMomentum>(param + i, grad + i, buffer + i, kStep, c);
  }
  sgd_part<kDivide, kMomentum>(param + i, grad + i, buffer + i, n - i, c);
}

template <class T>
void sgd(T* param, const T* grad, T* buffer, std::int64_t n, const SgdCoefficients<T>& c) {
  if (buffer == nullptr)  // never touched; `param` keeps the pointer arithmetic valid
    return c.scale.divide ? sgd_loop<true, Momentum::none>(param, grad, param, n, c)
                          : sgd_loop<false, Momentum::none>(param, grad, param, n, c);
  if (c.nesterov)
    return c.scale.divide ? sgd_loop<true, Momentum::nesterov>(param, grad, buffer, n, c)
                          : sgd_loop<false, Momentum::nesterov>(param, grad, buffer, n, c);
  return c.scale.divide ? sgd_loop<true, Momentum::classic>(param, grad, buffer, n, c)
                        : sgd_loop<false, Momentum::classic>(param, grad, buffer, n, c);
}

template <bool kDivide, class T>
inline void adam_part(T* param, const T* grad, T* m, T* v, std::int64_t n,
                      const AdamCoefficients<T>& c) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) adam_rule<kDivide>(param[i], grad[i], m[i], v[i], c);
}

template <bool kDivide, class T>
void adam_loop(T* param, const T* grad, T* m, T* v, std::int64_t n, const AdamCoefficients<T> c) {
  std::int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    prefetch(param + i);
    prefetch(grad + i);
    prefetch(m + i);
    prefetch(v + i);
    adam_part<kDivide>(param + i, grad + i, m + i, v + i, kStep, c);
  }
  adam_part<kDivide>(param + i, grad + i, m + i, v + i, n - i, c);
}

template <class T>
void adam(T* param, const T* grad, T* m, T* v, std::int64_t n, const AdamCoefficients<T>& c) {
  return c.scale.divide ? adam_loop<true>(param, grad, m, v, n, c)
                        : adam_loop<false>(param, grad, m, v, n, c);
}

constexpr int kLanes = 8;

template <bool kDivide, class T>
inline double squares_of_block(const T* grad, const GradientScale<T>& scale) {
  double lane[kLanes] = {};
  for (int row = 0; row < kSquaresBlock; row += kLanes) {
#pragma omp simd
    for (int j = 0; j < kLanes; ++j) {
      const double g = mean_gradient<kDivide>(grad[row + j], scale);
      lane[j] += g * g;
    }
  }
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

template <bool kDivide, class T>
void squares_loop(const T* grad, std::int64_t n, const GradientScale<T> scale, double* sums) {
  for (; n >= kSquaresBlock; n -= kSquaresBlock, grad += kSquaresBlock) {
    prefetch(grad);
    *sums++ = squares_of_block<kDivide>(grad, scale);
  }
  if (n == 0) return;
  T padded[kSquaresBlock] = {};
  for (std::int64_t i = 0; i < n; ++i) padded[i] = grad[i];
  *sums = squares_of_block<kDivide>(padded, scale);
}

template <class T>
void block_squares(const T* grad, std::int64_t n, const GradientScale<T>& scale, double* sums) {
  return scale.divide ? squares_loop<true>(grad, n, scale, sums)
                      : squares_loop<false>(grad, n, scale, sums);
}

}  // namespace

const OptimizerKernels& optimizer_kernels_table() {
  static const OptimizerKernels table{{sgd<float>, adam<float>, block_squares<float>},
                                      {sgd<double>, adam<double>, block_squares<double>}};
  return table;
}

}  // namespace sg::kernels::SG_ISA
