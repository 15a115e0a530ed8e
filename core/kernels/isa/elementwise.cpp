// The loops of elementwise_list.h. `omp simd` is sound although an output may be an input: index i
// touches only i.
#include "core/kernels/elementwise.h"

namespace sg::kernels::SG_ISA {
namespace {

template <class Op, class T>
void unary(const T* x, T* y, std::int64_t n, T a, T b) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    if constexpr (ew::takes_parameters<Op>)
      y[i] = Op::f(x[i], a, b);
    else
      y[i] = Op::f(x[i]);
  }
}

template <class Op, class T>
void unary_grad(const T* x, const T* y, const T* gy, T* gx, std::int64_t n, T a, T b) {
  constexpr unsigned saves = ew::saves_of<Op>();
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    T xi = T(0), yi = T(0);
    if constexpr ((saves & ew::kInput) != 0) xi = x[i];
    if constexpr ((saves & ew::kOutput) != 0) yi = y[i];
    if constexpr (ew::takes_parameters<Op>)
      gx[i] = gy[i] * Op::df(xi, yi, a, b);
    else
      gx[i] = gy[i] * Op::df(xi, yi);
  }
}

template <class Op, class T>
void binary(const T* a, const T* b, T* y, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) y[i] = Op::f(a[i], b[i]);
}

template <class Op, bool kOfFirst, class T>
void binary_grad(const T* a, const T* b, const T* g, T* out, std::int64_t n) {
  constexpr unsigned saves = kOfFirst ? Op::da_saves : Op::db_saves;
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    T ai = T(0), bi = T(0);
    if constexpr ((saves & ew::kFirst) != 0) ai = a[i];
    if constexpr ((saves & ew::kSecond) != 0) bi = b[i];
    if constexpr (kOfFirst)
      out[i] = g[i] * Op::da(ai, bi);
    else
      out[i] = g[i] * Op::db(ai, bi);
  }
}

template <class Op, class T>
void compare(const T* a, const T* b, std::uint8_t* y, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) y[i] = Op::f(a[i], b[i]) ? 1 : 0;
}

template <class T>
void select(const std::uint8_t* condition, const T* a, const T* b, T* y, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) y[i] = condition[i] != 0 ? a[i] : b[i];
}

template <class T>
ElementwiseLoops<T> make_loops() {
  constexpr bool floating = std::is_same_v<T, float> || std::is_same_v<T, double>;
  ElementwiseLoops<T> t{};
  ew::for_each(ew::Unary{}, [&]<class Op>(Op) {
    constexpr int i = ew::index_of<Op, ew::Unary>;
    if constexpr (floating || ew::has_integers<Op>) t.unary[i] = unary<Op, T>;
    if constexpr (floating) t.unary_grad[i] = unary_grad<Op, T>;
  });
  ew::for_each(ew::Binary{}, [&]<class Op>(Op) {
    constexpr int i = ew::index_of<Op, ew::Binary>;
    if constexpr (floating || ew::has_integers<Op>) t.binary[i] = binary<Op, T>;
    if constexpr (floating) t.grad_a[i] = binary_grad<Op, true, T>;
    if constexpr (floating) t.grad_b[i] = binary_grad<Op, false, T>;
  });
  ew::for_each(ew::Compare{},
               [&]<class Op>(Op) { t.compare[ew::index_of<Op, ew::Compare>] = compare<Op, T>; });
  t.select = select<T>;
  return t;
}

}  // namespace

const ElementwiseKernels& elementwise_kernels_table() {
  static const ElementwiseKernels table{make_loops<double>(), make_loops<float>(),
                                        make_loops<std::int64_t>(), make_loops<std::int32_t>(),
                                        make_loops<std::uint8_t>()};
  return table;
}

}  // namespace sg::kernels::SG_ISA
