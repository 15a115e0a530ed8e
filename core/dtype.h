// Element types. Values of 16 bits are stored as such and computed in float (compute_t).
#pragma once

#include <cstring>
#include <string_view>

#include "core/check.h"
#include "core/scalar.h"

namespace sg {

/// Bytes of one element.
std::size_t size_of(DType dtype);
/// "f32", "bf16", ...
std::string_view name_of(DType dtype);
/// f64, f32, bf16 and f16.
bool is_floating(DType dtype);
/// bf16 and f16.
inline bool is_half(DType dtype) { return dtype == DType::bf16 || dtype == DType::f16; }

inline void check_floating(std::string_view op, DType dtype) {
  SG_CHECK(is_floating(dtype), "[{}] needs a floating dtype, got {}; cast it first", op,
           name_of(dtype));
}

/// As visit, for floating types only; any other is an error that names the op.
template <class F>
decltype(auto) visit_floating(std::string_view op, DType dtype, F&& f) {
  check_floating(op, dtype);
  return visit_floating(dtype, f);
}

/// As visit_floating, with the type that is computed in.
template <class F>
decltype(auto) visit_wide(std::string_view op, DType dtype, F&& f) {
  check_floating(op, dtype);
  return visit_wide(dtype, f);
}

}  // namespace sg
