#include "core/kernels/matmul.h"

#include "core/kernels/simd.h"

namespace sg::kernels::SG_ISA {
namespace {

// Rows and vectors of the block that stays in registers: as many accumulators as leave room for two
// vectors of b and a broadcast value of a.
#if defined(__AVX512F__)
constexpr int kRows = 12;
#elif defined(__AVX2__)
constexpr int kRows = 6;
#else
constexpr int kRows = 4;
#endif
constexpr int kVectors = 2;
template <class T>
constexpr int kColumns = kVectors* kLanes<T>;

// A panel of a (kRows x kDepth) stays in the first-level cache, the packed block of a in the
// second.
constexpr std::int64_t kDepth = 256;
constexpr std::int64_t kBlockRows = 192;  // a multiple of every kRows
constexpr std::int64_t kBlockColumns = 2048;

template <class T>
SG_HD T smaller(T a, T b) {
  return a < b ? a : b;
}
SG_HD std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// packed[panel][p][r]: rows (or columns) of a panel side by side for each p, short panels filled
// with zeros.
template <int kWidth, class T>
void pack(const T* from, std::int64_t across, std::int64_t along, std::int64_t width,
          std::int64_t depth, T* to) {
  for (std::int64_t w = 0; w < width; w += kWidth, to += kWidth * depth) {
    const T* panel = from + w * across;
    const std::int64_t used = smaller<std::int64_t>(kWidth, width - w);
    if (used < kWidth) {
      for (std::int64_t p = 0; p < depth; ++p)
        for (std::int64_t r = 0; r < kWidth; ++r)
          to[p * kWidth + r] = r < used ? panel[r * across + p * along] : T(0);
    } else if (across == 1) {
      for (std::int64_t p = 0; p < depth; ++p)
#pragma omp simd
        for (std::int64_t r = 0; r < kWidth; ++r) to[p * kWidth + r] = panel[p * along + r];
    } else {
      for (std::int64_t r = 0; r < kWidth; ++r)
        for (std::int64_t p = 0; p < depth; ++p) to[p * kWidth + r] = panel[r * across + p * along];
    }
  }
}

// c (rows x columns of a block) = or += panel of a times panel of b, of which only the first kUsed
// vectors are wanted.
template <class T, int kUsed>
void micro_kernel(std::int64_t depth, const T* a, const T* b, T* c, std::int64_t ldc,
                  std::int64_t rows, std::int64_t columns, bool first) {
  Vector<T> sum[kRows][kUsed] = {};
  for (std::int64_t p = 0; p < depth; ++p, a += kRows, b += kColumns<T>) {
    Vector<T> bv[kUsed];
    for (int v = 0; v < kUsed; ++v) bv[v] = load(b + v * kLanes<T>);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Vector<T> av = splat(a[r]);
#pragma GCC unroll 2
      for (int v = 0; v < kUsed; ++v) sum[r][v] = multiply_add<T>(av, bv[v], sum[r][v]);
    }
  }
  if (rows == kRows && columns == kUsed * kLanes<T>) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < kUsed; ++v) {
        T* to = c + r * ldc + v * kLanes<T>;
        store<T>(to, first ? sum[r][v] : load(to) + sum[r][v]);
      }
    return;
  }
  T flat[kRows][kUsed * kLanes<T>];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < kUsed; ++v) store<T>(&flat[r][v * kLanes<T>], sum[r][v]);
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t j = 0; j < columns; ++j)
      c[r * ldc + j] = first ? flat[r][j] : c[r * ldc + j] + flat[r][j];
}

template <class T>
std::int64_t packed_a(std::int64_t m, std::int64_t k) {
  return round_up(smaller(m, kBlockRows), kRows) * smaller(k, kDepth) + 64;
}

template <class T>
std::int64_t scratch_bytes(std::int64_t m, std::int64_t n, std::int64_t k) {
  const std::int64_t packed_b =
      round_up(smaller(n, kBlockColumns), kColumns<T>) * smaller(k, kDepth);
  return (round_up(packed_a<T>(m, k), 64) + packed_b) * static_cast<std::int64_t>(sizeof(T));
}

template <class T>
void multiply(std::int64_t m, std::int64_t n, std::int64_t k, MatrixView<T> a, MatrixView<T> b,
              T* c, std::int64_t ldc, void* scratch) {
  T* const pa = static_cast<T*>(scratch);
  T* const pb = pa + round_up(packed_a<T>(m, k), 64);
  for (std::int64_t j = 0; j < n; j += kBlockColumns) {
    const std::int64_t nj = smaller(kBlockColumns, n - j);
    for (std::int64_t p = 0; p < k; p += kDepth) {
      const std::int64_t kp = smaller(kDepth, k - p);
      pack<kColumns<T>>(b.data + p * b.row + j * b.column, b.column, b.row, nj, kp, pb);
      for (std::int64_t i = 0; i < m; i += kBlockRows) {
        const std::int64_t mi = smaller(kBlockRows, m - i);
        pack<kRows>(a.data + i * a.row + p * a.column, a.row, a.column, mi, kp, pa);
        for (std::int64_t jj = 0; jj < nj; jj += kColumns<T>)
          for (std::int64_t ii = 0; ii < mi; ii += kRows) {
            const std::int64_t rows = smaller<std::int64_t>(kRows, mi - ii);
            const std::int64_t columns = smaller<std::int64_t>(kColumns<T>, nj - jj);
            T* const to = c + (i + ii) * ldc + j + jj;
            if (columns > kLanes<T>)
              micro_kernel<T, 2>(kp, pa + ii * kp, pb + jj * kp, to, ldc, rows, columns, p == 0);
            else
              micro_kernel<T, 1>(kp, pa + ii * kp, pb + jj * kp, to, ldc, rows, columns, p == 0);
          }
      }
    }
  }
}

template <class T>
void add_bias(T* y, const T* bias, std::int64_t rows, std::int64_t columns, bool relu) {
  for (std::int64_t r = 0; r < rows; ++r, y += columns) {
    if (bias != nullptr) {
#pragma omp simd
      for (std::int64_t j = 0; j < columns; ++j) {
        const T v = y[j] + bias[j];
        y[j] = relu && v < 0 ? T(0) : v;
      }
    } else if (relu) {
#pragma omp simd
      for (std::int64_t j = 0; j < columns; ++j) y[j] = y[j] < 0 ? T(0) : y[j];
    }
  }
}

template <class T>
constexpr MatmulLoops<T> loops() {
  return {multiply<T>, scratch_bytes<T>, kRows, kColumns<T>, add_bias<T>};
}

}  // namespace

const MatmulKernels& matmul_kernels_table() {
  static constexpr MatmulKernels table{loops<float>(), loops<double>()};
  return table;
}

}  // namespace sg::kernels::SG_ISA
