// The sum behind reduce-scatter: several spans added element by element, strictly in the order
// given, which is the order of ranks.
#include "core/cuda/kernels.h"

namespace sg::cuda {
namespace {

template <class T>
struct Fold {
  T* out;
  const T* sources[kMaxFold];
  int count;
  std::int64_t packs;
  SG_HD void operator()(std::int64_t i) const {
    constexpr int kCount = Pack<T>::kCount;
    if (i >= packs) {
      const std::int64_t at = packs * kCount + (i - packs);
      T total = sources[0][at];
      for (int s = 1; s < count; ++s) total = total + sources[s][at];
      out[at] = total;
      return;
    }
    Pack<T> total = reinterpret_cast<const Pack<T>*>(sources[0])[i];
    for (int s = 1; s < count; ++s) {
      const Pack<T> next = reinterpret_cast<const Pack<T>*>(sources[s])[i];
      for (int k = 0; k < kCount; ++k) total.values[k] = total.values[k] + next.values[k];
    }
    reinterpret_cast<Pack<T>*>(out)[i] = total;
  }
};

template <class T>
void run(const Launch& on, void* out, const void* const* sources, int count, std::int64_t n) {
  Fold<T> f{static_cast<T*>(out), {}, count, 0};
  std::uintptr_t bits = reinterpret_cast<std::uintptr_t>(out);
  for (int s = 0; s < count; ++s) {
    f.sources[s] = static_cast<const T*>(sources[s]);
    bits |= reinterpret_cast<std::uintptr_t>(sources[s]);
  }
  if (bits % 16 == 0) f.packs = n / Pack<T>::kCount;
  for_each(on, f.packs + (n - f.packs * Pack<T>::kCount), f);
}

}  // namespace

void fold(const Launch& on, DType dtype, void* out, const void* const* sources, int count,
          std::int64_t n) {
  if (dtype == DType::f64)
    run<double>(on, out, sources, count, n);
  else
    run<float>(on, out, sources, count, n);
}

}  // namespace sg::cuda
