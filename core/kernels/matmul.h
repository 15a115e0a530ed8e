// The library's own matrix product: packed panels and a register-blocked inner kernel (Goto and van
// de Geijn, "Anatomy of high-performance matrix multiplication", 2008). It serves f64, and f32
// where oneDNN is missing or too small a product makes its call expensive.
#pragma once

#include <cstdint>

#include "core/kernels/isa.h"

namespace sg::kernels {

/// A matrix in memory: element (i, j) at data[i * row + j * column], one of the strides being 1 (or
/// the size 1).
template <class T>
struct MatrixView {
  const T* data;
  std::int64_t row, column;
};

template <class T>
struct MatmulLoops {
  /// c[i * ldc + j] = sum over p of a(i, p) b(p, j) for an m x n block; one thread. `scratch` holds
  /// scratch_bytes() bytes, 64-byte aligned. An element's bits depend on its row of a and column of
  /// b alone, not on the block it is computed in.
  void (*multiply)(std::int64_t m, std::int64_t n, std::int64_t k, MatrixView<T> a, MatrixView<T> b,
                   T* c, std::int64_t ldc, void* scratch);
  std::int64_t (*scratch_bytes)(std::int64_t m, std::int64_t n, std::int64_t k);
  /// Rows and columns of the inner kernel's block: good sizes to cut a product at.
  int block_rows, block_columns;
  /// y[r][j] = relu(y[r][j] + bias[j]); bias may be null, relu left out.
  void (*add_bias)(T* y, const T* bias, std::int64_t rows, std::int64_t columns, bool relu);
};

struct MatmulKernels {
  MatmulLoops<float> f32;
  MatmulLoops<double> f64;
};

SG_ISA_TABLE(MatmulKernels, matmul_kernels)

}  // namespace sg::kernels
