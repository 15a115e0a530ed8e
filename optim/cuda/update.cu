#include "optim/cuda/update.h"

#include "core/cuda/map.h"
#include "optim/kernels/rules.h"

namespace sg::cuda {
Launch on(const char* op, Device device);  // core/cuda/context.h, which device code cannot include
}

namespace sg::optim::cuda {
namespace {

using kernels::AdamCoefficients;
using kernels::GradientScale;
using kernels::Momentum;
using kernels::SgdCoefficients;
using sg::cuda::for_each;
using sg::cuda::Pack;

// How many elements from the front are taken by packs: all spans must begin at 16 bytes.
template <class T, class... P>
std::int64_t packed(std::int64_t n, const P*... spans) {
  const bool aligned = ((reinterpret_cast<std::uintptr_t>(spans) % 16 == 0) && ...);
  return aligned ? n / Pack<T>::kCount : 0;
}

template <class T>
SG_HD Pack<T>& pack(T* p, std::int64_t i) {
  return reinterpret_cast<Pack<T>*>(p)[i];
}
template <class T>
SG_HD const Pack<T>& pack(const T* p, std::int64_t i) {
  return reinterpret_cast<const Pack<T>*>(p)[i];
}

template <bool kDivide, class T>
struct Adam {
  T* param;
  const T* grad;
  T *m, *v;
  std::int64_t packs;
  AdamCoefficients<T> c;
  SG_HD void operator()(std::int64_t i) const {
    constexpr int kCount = Pack<T>::kCount;
    if (i >= packs) {
      const std::int64_t at = packs * kCount + (i - packs);
      return kernels::adam_rule<kDivide>(param[at], grad[at], m[at], v[at], c);
    }
    Pack<T> p = pack(param, i), a = pack(m, i), b = pack(v, i);
    const Pack<T> g = pack(grad, i);
    for (int k = 0; k < kCount; ++k)
      kernels::adam_rule<kDivide>(p.values[k], g.values[k], a.values[k], b.values[k], c);
    pack(param, i) = p;
    pack(m, i) = a;
    pack(v, i) = b;
  }
};

template <bool kDivide, Momentum kMomentum, class T>
struct Sgd {
  T* param;
  const T* grad;
  T* buffer;
  std::int64_t packs;
  SgdCoefficients<T> c;
  SG_HD void operator()(std::int64_t i) const {
    constexpr int kCount = Pack<T>::kCount;
    T unused = T(0);
    if (i >= packs) {
      const std::int64_t at = packs * kCount + (i - packs);
      T& b = kMomentum == Momentum::none ? unused : buffer[at];
      return kernels::sgd_rule<kDivide, kMomentum>(param[at], grad[at], b, c);
    }
    Pack<T> p = pack(param, i), b{};
    if constexpr (kMomentum != Momentum::none) b = pack(buffer, i);
    const Pack<T> g = pack(grad, i);
    for (int k = 0; k < kCount; ++k)
      kernels::sgd_rule<kDivide, kMomentum>(p.values[k], g.values[k], b.values[k], c);
    pack(param, i) = p;
    if constexpr (kMomentum != Momentum::none) pack(buffer, i) = b;
  }
};

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

template <bool kDivide, Momentum kMomentum, class T>
void run_sgd(const sg::cuda::Launch& on, T* param, const T* grad, T* buffer, std::int64_t n,
             const SgdCoefficients<T>& c) {
  const std::int64_t packs =
      kMomentum == Momentum::none ? packed<T>(n, param, grad) : packed<T>(n, param, grad, buffer);
  for_each(on, packs + (n - packs * Pack<T>::kCount),
           Sgd<kDivide, kMomentum, T>{param, grad, buffer, packs, c});
}

template <bool kDivide, class T>
void choose_sgd(const sg::cuda::Launch& on, T* param, const T* grad, T* buffer, std::int64_t n,
                const SgdCoefficients<T>& c) {
  if (buffer == nullptr)
    run_sgd<kDivide, Momentum::none>(on, param, grad, buffer, n, c);
  else if (c.nesterov)
    run_sgd<kDivide, Momentum::nesterov>(on, param, grad, buffer, n, c);
  else
    run_sgd<kDivide, Momentum::classic>(on, param, grad, buffer, n, c);
}

}  // namespace

template <class T>
void sgd(const char* name, Device device, T* param, const T* grad, T* buffer, std::int64_t n,
         const SgdCoefficients<T>& c) {
  const sg::cuda::Launch launch = sg::cuda::on(name, device);
  if (c.scale.divide)
    choose_sgd<true>(launch, param, grad, buffer, n, c);
  else
    choose_sgd<false>(launch, param, grad, buffer, n, c);
}

template <class T>
void adam(const char* name, Device device, T* param, const T* grad, T* m, T* v, std::int64_t n,
          const AdamCoefficients<T>& c) {
  const sg::cuda::Launch launch = sg::cuda::on(name, device);
  const std::int64_t packs = packed<T>(n, param, grad, m, v);
  const std::int64_t items = packs + (n - packs * Pack<T>::kCount);
  if (c.scale.divide)
    for_each(launch, items, Adam<true, T>{param, grad, m, v, packs, c});
  else
    for_each(launch, items, Adam<false, T>{param, grad, m, v, packs, c});
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

template void sgd(const char*, Device, float*, const float*, float*, std::int64_t,
                  const SgdCoefficients<float>&);
template void sgd(const char*, Device, double*, const double*, double*, std::int64_t,
                  const SgdCoefficients<double>&);
template void adam(const char*, Device, float*, const float*, float*, float*, std::int64_t,
                   const AdamCoefficients<float>&);
template void adam(const char*, Device, double*, const double*, double*, double*, std::int64_t,
                   const AdamCoefficients<double>&);
template void block_squares(const char*, Device, const float*, std::int64_t,
                            const GradientScale<float>&, double*);
template void block_squares(const char*, Device, const double*, std::int64_t,
                            const GradientScale<double>&, double*);

}  // namespace sg::optim::cuda
