// Pooling loops: single-threaded parts of an op, for either layout.
#pragma once

#include <cstdint>

#include "core/kernels/isa.h"
#include "core/kernels/pool_geometry.h"

namespace sg::kernels {

/// I: the type of an index within a window. A `plane` is one [H, W] of a row-major tensor; an image
/// is one [H, W, C] of a channels-last one. x, y, index, dx and dy point to the first plane or
/// image, of `count`.
template <class T, class I>
struct MaxPoolLoops {
  void (*forward_planes)(const PoolGeometry&, const T* x, T* y, I* index, std::int64_t count);
  void (*forward_images)(const PoolGeometry&, const T* x, T* y, I* index, std::int64_t count);
  void (*backward_planes)(const PoolGeometry&, const T* dy, const I* index, T* dx,
                          std::int64_t count);
  void (*backward_images)(const PoolGeometry&, const T* dy, const I* index, T* dx,
                          std::int64_t count);
};

template <class T>
struct AvgPoolLoops {
  void (*forward_planes)(const PoolGeometry&, const T* x, T* y, std::int64_t count);
  void (*forward_images)(const PoolGeometry&, const T* x, T* y, std::int64_t count);
  void (*backward_planes)(const PoolGeometry&, const T* dy, T* dx, std::int64_t count);
  void (*backward_images)(const PoolGeometry&, const T* dy, T* dx, std::int64_t count);
};

struct PoolTable {
  MaxPoolLoops<float, std::uint8_t> max_f32_u8;
  MaxPoolLoops<float, std::int32_t> max_f32_i32;
  MaxPoolLoops<double, std::uint8_t> max_f64_u8;
  MaxPoolLoops<double, std::int32_t> max_f64_i32;
  AvgPoolLoops<float> avg_f32;
  AvgPoolLoops<double> avg_f64;
};
SG_ISA_TABLE(PoolTable, pool)

template <class T, class I>
const MaxPoolLoops<T, I>& max_pool_loops() {
  const PoolTable& table = pool();
  if constexpr (sizeof(T) == 4 && sizeof(I) == 1)
    return table.max_f32_u8;
  else if constexpr (sizeof(T) == 4)
    return table.max_f32_i32;
  else if constexpr (sizeof(I) == 1)
    return table.max_f64_u8;
  else
    return table.max_f64_i32;
}

template <class T>
const AvgPoolLoops<T>& avg_pool_loops() {
  if constexpr (sizeof(T) == 4)
    return pool().avg_f32;
  else
    return pool().avg_f64;
}

}  // namespace sg::kernels
