// Element types of 16 bits, and the list of all element types. Nothing else is included, so that
// device code, which knows no formatting, can use it.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/kernels/host_device.h"

namespace sg {

/// bfloat16: the upper half of a float. Conversion rounds to nearest, ties to even; NaN stays NaN.
struct bf16 {
  std::uint16_t bits = 0;
  bf16() = default;
  SG_HD explicit bf16(float value) {
    const std::uint32_t u = std::bit_cast<std::uint32_t>(value);
    if (value != value)
      bits = static_cast<std::uint16_t>((u >> 16) | 0x40);  // keep it a quiet NaN
    else
      bits = static_cast<std::uint16_t>((u + 0x7fff + ((u >> 16) & 1)) >> 16);
  }
  SG_HD operator float() const { return std::bit_cast<float>(std::uint32_t{bits} << 16); }
};

/// IEEE 754 half precision. Conversion rounds to nearest, ties to even.
struct f16 {
  std::uint16_t bits = 0;
  f16() = default;
  SG_HD explicit f16(float value) {
    const std::uint32_t u = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (u >> 16) & 0x8000;
    const std::uint32_t magnitude = u & 0x7fffffff;
    if (magnitude >= 0x7f800000) {  // infinity or NaN
      bits = static_cast<std::uint16_t>(sign | 0x7c00 | (magnitude > 0x7f800000 ? 0x200 : 0));
      return;
    }
    if (magnitude >= 0x477ff000) {  // rounds past 65504
      bits = static_cast<std::uint16_t>(sign | 0x7c00);
      return;
    }
    std::uint32_t mantissa = magnitude - 0x38000000, shift = 13;
    if (magnitude < 0x38800000) {  // subnormal half
      const std::uint32_t exponent = magnitude >> 23;
      if (exponent < 102) {
        bits = static_cast<std::uint16_t>(sign);
        return;
      }
      mantissa = (magnitude & 0x7fffff) | 0x800000;
      shift = 126 - exponent;
    }
    const std::uint32_t half = 1u << (shift - 1);
    std::uint32_t rounded = mantissa >> shift;
    const std::uint32_t rest = mantissa & ((1u << shift) - 1);
    if (rest > half || (rest == half && (rounded & 1))) ++rounded;
    bits = static_cast<std::uint16_t>(sign | rounded);
  }
  SG_HD operator float() const {
    const std::uint32_t sign = std::uint32_t{bits & 0x8000u} << 16;
    const std::uint32_t exponent = (bits >> 10) & 0x1f;
    const std::uint32_t mantissa = bits & 0x3ff;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | (mantissa << 13));
    if (exponent == 0) {
      const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
      return sign ? -magnitude : magnitude;
    }
    return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  }
};

enum class DType : std::uint8_t { f64, f32, bf16, f16, i64, i32, u8 };

template <class T>
inline constexpr DType dtype_of = [] {
  if constexpr (std::is_same_v<T, double>) return DType::f64;
  if constexpr (std::is_same_v<T, float>) return DType::f32;
  if constexpr (std::is_same_v<T, bf16>) return DType::bf16;
  if constexpr (std::is_same_v<T, f16>) return DType::f16;
  if constexpr (std::is_same_v<T, std::int64_t>) return DType::i64;
  if constexpr (std::is_same_v<T, std::int32_t>) return DType::i32;
  if constexpr (std::is_same_v<T, std::uint8_t>) return DType::u8;
}();

/// The type in which values of type T are computed: float for 16-bit values, T itself otherwise.
template <class T>
using compute_t = std::conditional_t<std::is_same_v<T, bf16> || std::is_same_v<T, f16>, float, T>;

/// `value` in another type. A fraction is cut off; what a smaller integer type cannot hold counts
/// modulo its size (u8 as in PyTorch); what i64 cannot hold (NaN, too) becomes its least number.
template <class To, class From>
SG_HD To convert(From value) {
  const auto wide = static_cast<compute_t<From>>(value);
  if constexpr (std::is_integral_v<To> && std::is_floating_point_v<compute_t<From>>) {
    constexpr compute_t<From> kEnd = 9223372036854775808.0;  // 2^63; a cast beyond it is undefined
    const std::int64_t whole = wide >= -kEnd && wide < kEnd ? static_cast<std::int64_t>(wide)
                                                            : static_cast<std::int64_t>(1ULL << 63);
    return static_cast<To>(whole);
  } else {
    return static_cast<To>(static_cast<compute_t<To>>(wide));
  }
}

template <class T>
struct Type {
  using type = T;
};

/// Calls f(Type<T>{}) with the C++ type of a floating `dtype`. The caller has checked that it is
/// one; visit_floating with an op's name (core/dtype.h) does that itself.
template <class F>
decltype(auto) visit_floating(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f64:
      return f(Type<double>{});
    case DType::bf16:
      return f(Type<bf16>{});
    case DType::f16:
      return f(Type<f16>{});
    default:
      return f(Type<float>{});
  }
}

/// Calls f(Type<T>{}) with the C++ type of `dtype`.
template <class F>
decltype(auto) visit(DType dtype, F&& f) {
  switch (dtype) {
    case DType::i64:
      return f(Type<std::int64_t>{});
    case DType::i32:
      return f(Type<std::int32_t>{});
    case DType::u8:
      return f(Type<std::uint8_t>{});
    default:
      return visit_floating(dtype, f);
  }
}

/// Calls f(Type<T>{}) with the type in which values of a floating `dtype` are computed.
template <class F>
decltype(auto) visit_wide(DType dtype, F&& f) {
  return dtype == DType::f64 ? f(Type<double>{}) : f(Type<float>{});
}

}  // namespace sg
