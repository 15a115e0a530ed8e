// Matrix products on the GPU: cuBLASLt in real builds (blas.cpp), plain loops where a stand-in is
// the GPU (tests/fake_cuda/fake_blas.cpp).
#pragma once

#include <cstdint>

#include "core/device.h"
#include "core/scalar.h"

namespace sg::cuda {

/// A matrix of a batch. Element (i, j) is at data + i * ld + j, or at data + i + j * ld where
/// `by_columns`. `ld`, at least the length of a line, and `stride`, between the batch's matrices,
/// are in elements; an operand with stride 0 is shared by the batch.
struct Matrix {
  const void* data = nullptr;
  std::int64_t ld = 0;
  bool by_columns = false;
  std::int64_t stride = 0;
};

/// out = a b, or out += a b, of m x k and k x n matrices; then the bias is added and relu taken.
/// All sizes are at least 1. 16-bit values are multiplied and summed in float and rounded once.
struct Gemm {
  DType dtype = DType::f32;      ///< of a, b and bias
  DType out_dtype = DType::f32;  ///< `dtype`, or f32 for 16-bit factors
  std::int64_t m = 0, n = 0, k = 0, batches = 1;
  Matrix a = {}, b = {};
  void* out = nullptr;  ///< by rows
  std::int64_t out_ld = 0, out_stride = 0;
  const void* bias = nullptr;  ///< [n] or null; for one batch
  bool relu = false;           ///< NaN stays NaN
  bool accumulate = false;     ///< of f32 or f64, without bias and relu
};

/// Queued on the compute stream of the current rank. The bits of the result depend on the values,
/// on the sizes, dtypes and strides, on the card and on the library's version: not on addresses,
/// and not on the run.
void gemm(const char* op, Device device, const Gemm& problem);

}  // namespace sg::cuda
