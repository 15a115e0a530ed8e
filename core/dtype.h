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
