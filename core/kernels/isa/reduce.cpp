// Sums of floats run in 32 lanes, eight additions in float, then in double: the error of a sum does
// not grow with its length. Columns are added eight rows at a time as a tree, then in double.
#include "core/kernels/reduce.h"

#include <type_traits>

#include "core/kernels/simd.h"

namespace sg::kernels::SG_ISA {
namespace {

constexpr int kSumLanes = 32;
constexpr std::int64_t kSumBlock = 8 * kSumLanes;

struct Sum {
  template <class T>
  SG_HD static T f(T a, T b) {
    return a + b;
  }
  template <class T>
  static constexpr T identity() {
    return T(0);
  }
};
struct Max {
  template <class T>
  SG_HD static T f(T a, T b) {
    return a > b || a != a ? a : b;
  }
  template <class T>
  static constexpr T identity() {
    return -T(__builtin_inf());
  }
};
struct Min {
  template <class T>
  SG_HD static T f(T a, T b) {
    return a < b || a != a ? a : b;
  }
  template <class T>
  static constexpr T identity() {
    return T(__builtin_inf());
  }
};

template <class Op, class T>
SG_HD Vector<T> fold_vectors(Vector<T> a, Vector<T> b) {
  if constexpr (std::is_same_v<Op, Sum>) {
    return a + b;
  } else {
    Vector<T> r = std::is_same_v<Op, Max> ? (a > b ? a : b) : (a < b ? a : b);
    r = b != b ? b : r;
    return a != a ? a : r;
  }
}

template <class Op, class T>
double fold_row(const T* x, std::int64_t n, double start) {
  constexpr int kVectors = kSumLanes / kLanes<T>;
  constexpr auto kIdentity = Op::template identity<double>();
  double total[kSumLanes];
  for (int j = 0; j < kSumLanes; ++j) total[j] = kIdentity;
  for (; n >= kSumLanes; n -= kSumBlock, x += kSumBlock) {
    Vector<T> lane[kVectors];
    for (int v = 0; v < kVectors; ++v) lane[v] = load(x + v * kLanes<T>);
    std::int64_t i = kSumLanes;
    for (; i + kSumLanes <= (n < kSumBlock ? n : kSumBlock); i += kSumLanes)
      for (int v = 0; v < kVectors; ++v)
        lane[v] = fold_vectors<Op, T>(lane[v], load(x + i + v * kLanes<T>));
    T flat[kSumLanes];
    for (int v = 0; v < kVectors; ++v) store<T>(flat + v * kLanes<T>, lane[v]);
#pragma omp simd
    for (int j = 0; j < kSumLanes; ++j) total[j] = Op::f(total[j], static_cast<double>(flat[j]));
    if (n < kSumBlock) {
      x += i;
      n -= i;
      break;
    }
  }
  for (std::int64_t i = 0; i < n; ++i) total[i] = Op::f(total[i], static_cast<double>(x[i]));
  for (int width = kSumLanes / 2; width > 0; width /= 2)
    for (int j = 0; j < width; ++j) total[j] = Op::f(total[j], total[j + width]);
  return Op::f(start, total[0]);
}

template <class Op, class T>
void fold_rows(const T* x, std::int64_t stride, std::int64_t rows, std::int64_t n,
               double* accumulator) {
  for (; rows >= 8; rows -= 8, x += 8 * stride) {
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) {
      const T* c = x + j;
      const T a = Op::f(Op::f(c[0], c[stride]), Op::f(c[2 * stride], c[3 * stride]));
      const T b = Op::f(Op::f(c[4 * stride], c[5 * stride]), Op::f(c[6 * stride], c[7 * stride]));
      accumulator[j] = Op::f(accumulator[j], static_cast<double>(Op::f(a, b)));
    }
  }
  for (; rows > 0; --rows, x += stride) {
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j)
      accumulator[j] = Op::f(accumulator[j], static_cast<double>(x[j]));
  }
}

template <class T>
constexpr ReduceLoops<T> loops() {
  return {{fold_row<Sum, T>, fold_row<Max, T>, fold_row<Min, T>},
          {fold_rows<Sum, T>, fold_rows<Max, T>, fold_rows<Min, T>}};
}

}  // namespace

const ReduceKernels& reduce_kernels_table() {
  static constexpr ReduceKernels table{loops<float>(), loops<double>()};
  return table;
}

}  // namespace sg::kernels::SG_ISA
