#include "core/dtype.h"

#include <cmath>

namespace sg {

bf16::bf16(float value) {
  std::uint32_t u = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) {
    bits = static_cast<std::uint16_t>((u >> 16) | 0x40);  // keep it a quiet NaN
    return;
  }
  u += 0x7fff + ((u >> 16) & 1);
  bits = static_cast<std::uint16_t>(u >> 16);
}

f16::f16(float value) {
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
  std::uint32_t mantissa, shift;
  std::uint32_t base;
  if (magnitude < 0x38800000) {  // subnormal half
    const std::uint32_t exponent = magnitude >> 23;
    if (exponent < 102) {
      bits = static_cast<std::uint16_t>(sign);
      return;
    }
    mantissa = (magnitude & 0x7fffff) | 0x800000;
    shift = 126 - exponent;
    base = 0;
  } else {
    mantissa = magnitude - 0x38000000;
    shift = 13;
    base = 0;
  }
  const std::uint32_t half = 1u << (shift - 1);
  std::uint32_t rounded = mantissa >> shift;
  const std::uint32_t rest = mantissa & ((1u << shift) - 1);
  if (rest > half || (rest == half && (rounded & 1))) ++rounded;
  bits = static_cast<std::uint16_t>(sign | (base + rounded));
}

f16::operator float() const {
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
