// Plain loops that the compiler vectorizes: one pass over memory. Non-temporal stores were slower,
// since the lines are read in any case.
#include "optim/kernels/update.h"

#include <math.h>  // C's functions: an inline std:: one could be linked into code for older processors

namespace sg::kernels::SG_ISA {
namespace {

inline float root(float x) { return sqrtf(x); }
inline double root(double x) { return sqrt(x); }

template <bool kDivide, class T>
inline T mean(T sum, const GradientScale<T>& scale) {
  return kDivide ? sum / scale.divisor : sum * scale.reciprocal;
}

enum class Momentum { none, classic, nesterov };

// Coefficients come by value: the stores to the spans then cannot be taken for changes of them.
template <bool kDivide, Momentum kMomentum, class T>
void sgd_loop(T* param, const T* grad, T* buffer, std::int64_t n, const SgdCoefficients<T> c) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const T p = param[i];
    T g = mean<kDivide>(grad[i], c.scale) * c.scale.clip + c.l2 * p;
    if constexpr (kMomentum != Momentum::none) {
      const T b = c.keep * buffer[i] + c.take * g;
      buffer[i] = b;
      g = kMomentum == Momentum::nesterov ? g + c.momentum * b : b;
    }
    param[i] = p - c.step_size * g;
  }
}

template <class T>
void sgd(T* param, const T* grad, T* buffer, std::int64_t n, const SgdCoefficients<T>& c) {
  if (buffer == nullptr)
    return c.scale.divide ? sgd_loop<true, Momentum::none>(param, grad, buffer, n, c)
                          : sgd_loop<false, Momentum::none>(param, grad, buffer, n, c);
  if (c.nesterov)
    return c.scale.divide ? sgd_loop<true, Momentum::nesterov>(param, grad, buffer, n, c)
                          : sgd_loop<false, Momentum::nesterov>(param, grad, buffer, n, c);
  return c.scale.divide ? sgd_loop<true, Momentum::classic>(param, grad, buffer, n, c)
                        : sgd_loop<false, Momentum::classic>(param, grad, buffer, n, c);
}

template <bool kDivide, class T>
void adam_loop(T* param, const T* grad, T* m, T* v, std::int64_t n, const AdamCoefficients<T> c) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const T p = param[i];
    const T g = mean<kDivide>(grad[i], c.scale) * c.scale.clip + c.l2 * p;
    const T first = c.beta1 * m[i] + c.rest1 * g;
    const T second = c.beta2 * v[i] + (c.rest2 * g) * g;
    m[i] = first;
    v[i] = second;
    // One division an element: step_size and the bias correction are folded into factors.
    param[i] = p * c.decay - (c.step_size * first) / (root(second) * c.root_scale + c.eps);
  }
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
      const double g = mean<kDivide>(grad[row + j], scale);
      lane[j] += g * g;
    }
  }
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

template <bool kDivide, class T>
void squares_loop(const T* grad, std::int64_t n, const GradientScale<T> scale, double* sums) {
  for (; n >= kSquaresBlock; n -= kSquaresBlock, grad += kSquaresBlock)
    *sums++ = squares_of_block<kDivide>(grad, scale);
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
