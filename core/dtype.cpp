#include "core/dtype.h"

namespace sg {

std::size_t size_of(DType dtype) {
  return visit(dtype, [](auto t) { return sizeof(typename decltype(t)::type); });
}

std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return "f64";
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::f16:
      return "f16";
    case DType::i64:
      return "i64";
    case DType::i32:
      return "i32";
    case DType::u8:
      break;
  }
  return "u8";
}

bool is_floating(DType dtype) { return dtype <= DType::f16; }

}  // namespace sg
