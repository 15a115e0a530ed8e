// Rows in memory for the programs of core/kernels/rows.h: 16-bit values are read and written as
// such, and computed in float.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/scalar.h"

namespace sg::cuda {

template <class T>
struct HalfRow {
  const T* at;
  SG_HD float operator[](std::int64_t i) const { return static_cast<float>(at[i]); }
  SG_HD bool operator!=(std::nullptr_t) const { return at != nullptr; }
};

template <class T>
struct HalfOutRow {
  struct Place {
    T* at;
    SG_HD void operator=(float value) const { *at = T(value); }
  };
  T* at;
  SG_HD Place operator[](std::int64_t i) const { return {at + i}; }
};

/// Row `r` of rows of n values.
template <class T>
SG_HD auto row(const T* data, std::int64_t r = 0, std::int64_t n = 0) {
  if constexpr (std::is_same_v<T, compute_t<T>>)
    return data + r * n;
  else
    return HalfRow<T>{data + r * n};
}

template <class T>
SG_HD auto out_row(T* data, std::int64_t r, std::int64_t n) {
  if constexpr (std::is_same_v<T, compute_t<T>>)
    return data + r * n;
  else
    return HalfOutRow<T>{data + r * n};
}

}  // namespace sg::cuda
