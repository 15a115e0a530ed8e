// Element types. Values of 16 bits are stored as such and computed in float (compute_t).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "core/check.h"

namespace sg {

/// bfloat16: the upper half of a float. Conversion rounds to nearest, ties to even; NaN stays NaN.
struct bf16 {
  std::uint16_t bits = 0;
  bf16() = default;
  explicit bf16(float value);
  operator float() const { return std::bit_cast<float>(std::uint32_t{bits} << 16); }
};

/// IEEE 754 half precision. Conversion rounds to nearest, ties to even.
struct f16 {
  std::uint16_t bits = 0;
  f16() = default;
  explicit f16(float value);
  operator float() const;
};

enum class DType : std::uint8_t { f64, f32, bf16, f16, i64, i32, u8 };

/// Bytes of one element.
std::size_t size_of(DType dtype);
/// "f32", "bf16", ...
std::string_view name_of(DType dtype);
/// f64, f32, bf16 and f16.
bool is_floating(DType dtype);

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

template <class T>
struct Type {
  using type = T;
};

/// Calls f(Type<T>{}) with the C++ type of `dtype`.
template <class F>
decltype(auto) visit(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f64:
      return f(Type<double>{});
    case DType::f32:
      return f(Type<float>{});
    case DType::bf16:
      return f(Type<bf16>{});
    case DType::f16:
      return f(Type<f16>{});
    case DType::i64:
      return f(Type<std::int64_t>{});
    case DType::i32:
      return f(Type<std::int32_t>{});
    case DType::u8:
      break;
  }
  return f(Type<std::uint8_t>{});
}

/// As visit, for floating types only; any other is an error that names the op.
template <class F>
decltype(auto) visit_floating(std::string_view op, DType dtype, F&& f) {
  switch (dtype) {
    case DType::f64:
      return f(Type<double>{});
    case DType::f32:
      return f(Type<float>{});
    case DType::bf16:
      return f(Type<bf16>{});
    case DType::f16:
      return f(Type<f16>{});
    default:
      fail("[{}] needs a floating dtype, got {}; cast it first", op, name_of(dtype));
  }
}

}  // namespace sg
