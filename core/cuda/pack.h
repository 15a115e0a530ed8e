// Several neighbouring values as one load or store.
#pragma once

#include <cstdint>

#include "core/cuda/map.h"

namespace sg::cuda {

template <class T, int kCount>
struct alignas(sizeof(T) * kCount < 16 ? sizeof(T) * kCount : 16) Values {
  T v[kCount];
};

template <int kCount, class T>
SG_HD Values<T, kCount> load(const T* p) {
  return *reinterpret_cast<const Values<T, kCount>*>(p);
}
template <class T, int kCount>
SG_HD void store(T* p, const Values<T, kCount>& values) {
  *reinterpret_cast<Values<T, kCount>*>(p) = values;
}

template <int kCount>
using Count = std::integral_constant<int, kCount>;

/// Calls f(Count<k>) with k = 16 bytes of T if `size` is a multiple of that and all pointers are
/// aligned to 16 bytes, else with 1. f64 has only the latter: it is rarely computed on a GPU.
template <class T, class F>
void with_pack(std::int64_t size, std::initializer_list<const void*> pointers, F&& f) {
  constexpr int kPack = std::is_same_v<T, double> ? 1 : Pack<T>::kCount;
  if constexpr (kPack > 1) {
    std::uintptr_t bits = 0;
    for (const void* p : pointers) bits |= reinterpret_cast<std::uintptr_t>(p);
    if (size % kPack == 0 && bits % 16 == 0) return f(Count<kPack>{});
  }
  f(Count<1>{});
}

}  // namespace sg::cuda
