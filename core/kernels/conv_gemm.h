// The matrix product under the reference convolution.
#pragma once

#include <cstdint>

#include "core/kernels/isa.h"

namespace sg::kernels {

/// C [m, n] = A [m, k] B [k, n] (+ C if accumulate). A has any strides; rows of B and C are
/// contiguous. Every element is one chain of products in order of k, so that the result does not
/// depend on how callers cut m and n.
template <class T>
using ConvGemm = void (*)(std::int64_t m, std::int64_t n, std::int64_t k, const T* a,
                          std::int64_t a_row, std::int64_t a_column, const T* b, std::int64_t ldb,
                          T* c, std::int64_t ldc, bool accumulate);

struct ConvGemmTable {
  ConvGemm<float> f32;
  ConvGemm<double> f64;
};
SG_ISA_TABLE(ConvGemmTable, conv_gemm)

}  // namespace sg::kernels
