#include "core/kernels/conv_gemm.h"

#include "core/kernels/simd.h"

namespace sg::kernels::SG_ISA {
namespace {

// multiply_add of one lane, rounded as the vectors are.
template <class T>
SG_HD T fma_scalar(T a, T b, T c) {
#if defined(__AVX2__) && defined(__FMA__)
  if constexpr (sizeof(T) == 4)
    return __builtin_fmaf(a, b, c);
  else
    return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}

// kRows rows of C times kColumns vectors, in registers over the whole of k.
template <class T, int kRows, int kColumns>
void tile(std::int64_t k, const T* a, std::int64_t a_row, std::int64_t a_column, const T* b,
          std::int64_t ldb, T* c, std::int64_t ldc, bool accumulate) {
  using V = Vector<T>;
  V sum[kRows][kColumns];
  for (int i = 0; i < kRows; ++i)
    for (int j = 0; j < kColumns; ++j)
      sum[i][j] = accumulate ? load(c + i * ldc + j * kLanes<T>) : V{};
  for (std::int64_t p = 0; p < k; ++p) {
    V row[kColumns];
    for (int j = 0; j < kColumns; ++j) row[j] = load(b + p * ldb + j * kLanes<T>);
    for (int i = 0; i < kRows; ++i) {
      const V x = splat(a[i * a_row + p * a_column]);
      for (int j = 0; j < kColumns; ++j) sum[i][j] = multiply_add<T>(x, row[j], sum[i][j]);
    }
  }
  for (int i = 0; i < kRows; ++i)
    for (int j = 0; j < kColumns; ++j) store(c + i * ldc + j * kLanes<T>, sum[i][j]);
}

template <class T, int kRows>
void rows(std::int64_t n, std::int64_t k, const T* a, std::int64_t a_row, std::int64_t a_column,
          const T* b, std::int64_t ldb, T* c, std::int64_t ldc, bool accumulate) {
  std::int64_t j = 0;
  for (; j + 2 * kLanes<T> <= n; j += 2 * kLanes<T>)
    tile<T, kRows, 2>(k, a, a_row, a_column, b + j, ldb, c + j, ldc, accumulate);
  for (; j + kLanes<T> <= n; j += kLanes<T>)
    tile<T, kRows, 1>(k, a, a_row, a_column, b + j, ldb, c + j, ldc, accumulate);
  for (; j < n; ++j)
    for (int i = 0; i < kRows; ++i) {
      T sum = accumulate ? c[i * ldc + j] : T(0);
      for (std::int64_t p = 0; p < k; ++p)
        sum = fma_scalar(a[i * a_row + p * a_column], b[p * ldb + j], sum);
      c[i * ldc + j] = sum;
    }
}

template <class T>
void gemm(std::int64_t m, std::int64_t n, std::int64_t k, const T* a, std::int64_t a_row,
          std::int64_t a_column, const T* b, std::int64_t ldb, T* c, std::int64_t ldc,
          bool accumulate) {
  std::int64_t i = 0;
  for (; i + 6 <= m; i += 6)
    rows<T, 6>(n, k, a + i * a_row, a_row, a_column, b, ldb, c + i * ldc, ldc, accumulate);
  for (; i + 2 <= m; i += 2)
    rows<T, 2>(n, k, a + i * a_row, a_row, a_column, b, ldb, c + i * ldc, ldc, accumulate);
  for (; i < m; ++i)
    rows<T, 1>(n, k, a + i * a_row, a_row, a_column, b, ldb, c + i * ldc, ldc, accumulate);
}

}  // namespace

const ConvGemmTable& conv_gemm_table() {
  static const ConvGemmTable table{&gemm<float>, &gemm<double>};
  return table;
}

}  // namespace sg::kernels::SG_ISA
