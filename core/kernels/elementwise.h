// Tables of elementwise loops, made from elementwise_list.h: contiguous values of the compute type,
// one thread. Strides, broadcasting, 16-bit casts and threads are the block walk's business
// (core/kernels/blocks.h).
#pragma once

#include <cstdint>

#include "core/kernels/elementwise_list.h"
#include "core/kernels/isa.h"

namespace sg::kernels {

/// Loops over n values. Output and inputs may be the same memory. An entry an op does not have for
/// T is null.
template <class T>
struct ElementwiseLoops {
  using Unary = void (*)(const T* x, T* y, std::int64_t n, T a, T b);
  /// gx = gy df(x, y); x or y is not read (and may be null) where the op does not save it.
  using UnaryGrad = void (*)(const T* x, const T* y, const T* gy, T* gx, std::int64_t n, T a, T b);
  using Binary = void (*)(const T* a, const T* b, T* y, std::int64_t n);
  /// out = g da(a, b), or db.
  using BinaryGrad = void (*)(const T* a, const T* b, const T* g, T* out, std::int64_t n);
  using Compare = void (*)(const T* a, const T* b, std::uint8_t* y, std::int64_t n);
  using Select = void (*)(const std::uint8_t* condition, const T* a, const T* b, T* y,
                          std::int64_t n);

  Unary unary[ew::Unary::count];
  UnaryGrad unary_grad[ew::Unary::count];
  Binary binary[ew::Binary::count];
  BinaryGrad grad_a[ew::Binary::count];
  BinaryGrad grad_b[ew::Binary::count];
  Compare compare[ew::Compare::count];
  Select select;
};

struct ElementwiseKernels {
  ElementwiseLoops<double> f64;
  ElementwiseLoops<float> f32;
  ElementwiseLoops<std::int64_t> i64;
  ElementwiseLoops<std::int32_t> i32;
  ElementwiseLoops<std::uint8_t> u8;

  template <class T>
  const ElementwiseLoops<T>& loops() const {
    if constexpr (std::is_same_v<T, double>)
      return f64;
    else if constexpr (std::is_same_v<T, float>)
      return f32;
    else if constexpr (std::is_same_v<T, std::int64_t>)
      return i64;
    else if constexpr (std::is_same_v<T, std::int32_t>)
      return i32;
    else
      return u8;
  }
};

SG_ISA_TABLE(ElementwiseKernels, elementwise_kernels)

/// Casts between 16-bit values (as raw bits) and float, contiguous; rounding to nearest, ties to
/// even.
struct ConvertKernels {
  void (*bf16_to_float)(const std::uint16_t* x, float* y, std::int64_t n);
  void (*float_to_bf16)(const float* x, std::uint16_t* y, std::int64_t n);
  void (*f16_to_float)(const std::uint16_t* x, float* y, std::int64_t n);
  void (*float_to_f16)(const float* x, std::uint16_t* y, std::int64_t n);
};

SG_ISA_TABLE(ConvertKernels, convert_kernels)

}  // namespace sg::kernels
