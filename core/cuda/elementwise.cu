// The ops of core/kernels/elementwise_list.h on the GPU. f32, bf16 and f16 have a kernel for
// contiguous values besides the one for strided ones; what is rarely computed on a GPU (f64,
// integers) has the latter alone.
#include "core/cuda/kernels.h"
#include "core/kernels/elementwise_list.h"

namespace sg::cuda {
namespace {

template <class Op, class C>
struct UnaryOp {
  C a, b;
  SG_HD C operator()(const C* v) const {
    if constexpr (ew::takes_parameters<Op>)
      return Op::f(v[0], a, b);
    else
      return Op::f(v[0]);
  }
};

template <class Op, class C>
struct UnaryGradOp {  // inputs x, y, grad
  C a, b;
  SG_HD C operator()(const C* v) const {
    if constexpr (ew::takes_parameters<Op>)
      return v[2] * Op::df(v[0], v[1], a, b);
    else
      return v[2] * Op::df(v[0], v[1]);
  }
};

template <class Op, class C>
struct BinaryOp {
  SG_HD C operator()(const C* v) const { return Op::f(v[0], v[1]); }
};

template <class Op, class C>
struct GradAOp {  // inputs a, b, grad
  SG_HD C operator()(const C* v) const { return v[2] * Op::da(v[0], v[1]); }
};

template <class Op, class C>
struct GradBOp {
  SG_HD C operator()(const C* v) const { return v[2] * Op::db(v[0], v[1]); }
};

template <class Op, class C>
struct CompareOp {
  SG_HD std::uint8_t operator()(const C* v) const { return Op::f(v[0], v[1]) ? 1 : 0; }
};

struct Call {
  const Launch& on;
  const Elementwise& op;
  std::int64_t n;
  const Walk<kMaxInputs + 1>* walk;
  const void* const* inputs;
  void* output;
};

template <int kInputs>
Walk<kInputs + 1> narrowed(const Walk<kMaxInputs + 1>& w) {
  Walk<kInputs + 1> r;
  r.dims = w.dims;
  for (int d = 0; d < w.dims; ++d) {
    r.size[d] = w.size[d];
    for (int k = 0; k <= kInputs; ++k) r.stride[k][d] = w.stride[k][d];
  }
  return r;
}

// A walk over contiguous values.
inline Walk<kMaxInputs + 1> flat(std::int64_t n) {
  Walk<kMaxInputs + 1> w;
  w.dims = 1;
  w.size[0] = n;
  for (auto& stride : w.stride) stride[0] = 1;
  return w;
}

template <class T>
inline constexpr bool has_packs = std::is_same_v<T, float> || !std::is_same_v<T, compute_t<T>>;

// kDense: the caller brings all operands into one dense order, so there is never a walk.
template <bool kDense, int kInputs, class T, class Out, class F>
void run(const Call& c, const F& f) {
  if constexpr (has_packs<T>) {
    if (kDense || c.walk == nullptr) return map<kInputs, T, Out>(c.on, c.n, c.inputs, c.output, f);
    if constexpr (kDense) return;
  }
  const Walk<kMaxInputs + 1> walk = c.walk != nullptr ? *c.walk : flat(c.n);
  map_strided<kInputs, T, Out>(c.on, c.n, narrowed<kInputs>(walk), c.inputs, c.output, f);
}

// select(Op) for the op at position `index` of a list.
template <class L, class F>
void at(int index, F&& select) {
  int i = 0;
  ew::for_each(L{}, [&]<class Op>(Op op) {
    if (i++ == index) select(op);
  });
}

template <class T, class Op>
void unary(const Call& c) {
  using C = compute_t<T>;
  if constexpr (std::is_floating_point_v<C> || ew::has_integers<Op>)
    run<true, 1, T, T>(c, UnaryOp<Op, C>{convert<C>(c.op.a), convert<C>(c.op.b)});
}

template <class T, class Op>
void unary_grad(const Call& c) {
  using C = compute_t<T>;
  if constexpr (std::is_floating_point_v<C>)
    run<true, 3, T, T>(c, UnaryGradOp<Op, C>{convert<C>(c.op.a), convert<C>(c.op.b)});
}

template <class T, class Op>
void binary(const Call& c) {
  using C = compute_t<T>;
  if constexpr (std::is_floating_point_v<C> || ew::has_integers<Op>)
    run<false, 2, T, T>(c, BinaryOp<Op, C>{});
}

template <class T, class Op>
void binary_grad(const Call& c) {
  using C = compute_t<T>;
  if constexpr (std::is_floating_point_v<C>) {
    if (c.op.family == Family::grad_a)
      run<false, 3, T, T>(c, GradAOp<Op, C>{});
    else
      run<false, 3, T, T>(c, GradBOp<Op, C>{});
  }
}

template <class T, class Op>
void compare(const Call& c) {
  run<false, 2, T, std::uint8_t>(c, CompareOp<Op, compute_t<T>>{});
}

// where's condition has a type of its own.
template <class T>
struct Where {
  const std::uint8_t* condition;
  const T *a, *b;
  T* out;
  Walk<4> walk;
  SG_HD void operator()(std::int64_t i) const {
    std::int64_t at[4];
    walk.locate(i, at);
    out[at[0]] = condition[at[1]] != 0 ? a[at[2]] : b[at[3]];
  }
};

template <class T>
void all(const Call& c) {
  switch (c.op.family) {
    case Family::unary:
      return at<ew::Unary>(c.op.op, [&]<class Op>(Op) { unary<T, Op>(c); });
    case Family::unary_grad:
      return at<ew::Unary>(c.op.op, [&]<class Op>(Op) { unary_grad<T, Op>(c); });
    case Family::binary:
      return at<ew::Binary>(c.op.op, [&]<class Op>(Op) { binary<T, Op>(c); });
    case Family::grad_a:
    case Family::grad_b:
      return at<ew::Binary>(c.op.op, [&]<class Op>(Op) { binary_grad<T, Op>(c); });
    case Family::compare:
      return at<ew::Compare>(c.op.op, [&]<class Op>(Op) { compare<T, Op>(c); });
    case Family::where:
      for_each(c.on, c.n,
               Where<T>{static_cast<const std::uint8_t*>(c.inputs[0]),
                        static_cast<const T*>(c.inputs[1]), static_cast<const T*>(c.inputs[2]),
                        static_cast<T*>(c.output), c.walk != nullptr ? *c.walk : flat(c.n)});
  }
}

}  // namespace

void elementwise(const Launch& on, const Elementwise& op, DType dtype, std::int64_t n,
                 const Walk<kMaxInputs + 1>* walk, const void* const* inputs, void* output) {
  const Call call{on, op, n, walk, inputs, output};
  visit(dtype, [&](auto type) { all<typename decltype(type)::type>(call); });
}

}  // namespace sg::cuda
