// One value of an array whose floating dtype is known at run time: for the few values that finish a
// reduction, of which every dtype would otherwise be a kernel of its own.
#pragma once

#include <cstdint>

#include "core/scalar.h"

namespace sg::cuda {

SG_HD double get_value(const void* data, DType dtype, std::int64_t i) {
  if (dtype == DType::f64) return static_cast<const double*>(data)[i];
  if (dtype == DType::bf16) return static_cast<float>(static_cast<const bf16*>(data)[i]);
  if (dtype == DType::f16) return static_cast<float>(static_cast<const f16*>(data)[i]);
  return static_cast<const float*>(data)[i];
}

SG_HD void put_value(void* data, DType dtype, std::int64_t i, double value) {
  if (dtype == DType::f64)
    static_cast<double*>(data)[i] = value;
  else if (dtype == DType::bf16)
    static_cast<bf16*>(data)[i] = bf16(static_cast<float>(value));
  else if (dtype == DType::f16)
    static_cast<f16*>(data)[i] = f16(static_cast<float>(value));
  else
    static_cast<float*>(data)[i] = static_cast<float>(value);
}

}  // namespace sg::cuda
