// Every elementwise op, once. A struct here and its word in a list at the end give the CPU table,
// the autograd node, gradcheck, and the test against PyTorch (tests/golden/ops.py has its reference
// by name); a CUDA table includes the same header. Functors are templates on the type they compute
// in: float for 16-bit values, so that what runs in float is what gradcheck checks in double.
//
//   unary    f(x), df(x, y) = dy/dx;  with parameters f(x, a, b), df(x, y, a, b)
//   binary   f(a, b), da(a, b) = dy/da, db(a, b) = dy/db
//
// `saves` (`da_saves`, `db_saves`) says what the derivative reads, so that nothing else is kept for
// backward; without it both are. `df_is_one` (`da_is_one`, `db_is_one`) passes the gradient on as
// it is. `integers` marks ops that also have integer dtypes. Values at kinks are PyTorch's.
#pragma once

#include <type_traits>

#include "core/kernels/math.h"

namespace sg::ew {

namespace math = kernels::math;

// One line a function, as a table.
// clang-format off

enum Saves : unsigned { kNone = 0, kInput = 1, kOutput = 2, kFirst = 1, kSecond = 2, kBoth = 3 };

// ---- unary

struct Neg {
  static constexpr char name[] = "neg";
  static constexpr Saves saves = kNone;
  static constexpr bool integers = true;
  template <class T> SG_HD static T f(T x) { return static_cast<T>(-x); }
  template <class T> SG_HD static T df(T, T) { return T(-1); }
};

struct Abs {
  static constexpr char name[] = "abs";
  static constexpr Saves saves = kInput;
  template <class T> SG_HD static T f(T x) { return math::abs(x); }
  template <class T> SG_HD static T df(T x, T) { return x > 0 ? T(1) : x < 0 ? T(-1) : T(0); }
};

struct Exp {
  static constexpr char name[] = "exp";
  static constexpr Saves saves = kOutput;
  template <class T> SG_HD static T f(T x) { return math::exp(x); }
  template <class T> SG_HD static T df(T, T y) { return y; }
};

struct Log {
  static constexpr char name[] = "log";
  static constexpr Saves saves = kInput;
  template <class T> SG_HD static T f(T x) { return math::log(x); }
  template <class T> SG_HD static T df(T x, T) { return T(1) / x; }
};

struct Sqrt {
  static constexpr char name[] = "sqrt";
  static constexpr Saves saves = kOutput;
  template <class T> SG_HD static T f(T x) { return math::sqrt(x); }
  template <class T> SG_HD static T df(T, T y) { return T(0.5) / y; }
};

struct Rsqrt {
  static constexpr char name[] = "rsqrt";
  static constexpr Saves saves = kOutput;
  template <class T> SG_HD static T f(T x) { return T(1) / math::sqrt(x); }
  template <class T> SG_HD static T df(T, T y) { return T(-0.5) * y * y * y; }
};

struct Square {
  static constexpr char name[] = "square";
  static constexpr Saves saves = kInput;
  static constexpr bool integers = true;
  template <class T> SG_HD static T f(T x) { return static_cast<T>(x * x); }
  template <class T> SG_HD static T df(T x, T) { return x + x; }
};

struct Reciprocal {
  static constexpr char name[] = "reciprocal";
  static constexpr Saves saves = kOutput;
  template <class T> SG_HD static T f(T x) { return T(1) / x; }
  template <class T> SG_HD static T df(T, T y) { return -y * y; }
};

struct Sin {
  static constexpr char name[] = "sin";
  static constexpr Saves saves = kInput;
  template <class T> SG_HD static T f(T x) { return math::sin(x); }
  template <class T> SG_HD static T df(T x, T) { return math::cos(x); }
};

struct Cos {
  static constexpr char name[] = "cos";
  static constexpr Saves saves = kInput;
  template <class T> SG_HD static T f(T x) { return math::cos(x); }
  template <class T> SG_HD static T df(T x, T) { return -math::sin(x); }
};

struct Tanh {
  static constexpr char name[] = "tanh";
  static constexpr Saves saves = kOutput;
  template <class T> SG_HD static T f(T x) { return math::tanh(x); }
  template <class T> SG_HD static T df(T, T y) { return T(1) - y * y; }
};

struct Erf {
  static constexpr char name[] = "erf";
  static constexpr Saves saves = kInput;
  template <class T> SG_HD static T f(T x) { return math::erf(x); }
  template <class T> SG_HD static T df(T x, T) {
    return T(1.12837916709551257390) * math::exp(-x * x);  // 2 / sqrt(pi)
  }
};

struct Sigmoid {
  static constexpr char name[] = "sigmoid";
  static constexpr Saves saves = kOutput;
  template <class T> SG_HD static T f(T x) { return math::sigmoid(x); }
  template <class T> SG_HD static T df(T, T y) { return y * (T(1) - y); }
};

struct Relu {
  static constexpr char name[] = "relu";
  static constexpr Saves saves = kOutput;
  static constexpr bool integers = true;
  template <class T> SG_HD static T f(T x) { return x < 0 ? T(0) : x; }  // NaN stays NaN
  template <class T> SG_HD static T df(T, T y) { return y > 0 ? T(1) : T(0); }
};

struct Gelu {  // exact: x Phi(x)
  static constexpr char name[] = "gelu";
  static constexpr Saves saves = kInput;
  template <class T> SG_HD static T cdf(T x) {
    return T(0.5) * (T(1) + math::erf(x * T(0.70710678118654752440)));
  }
  template <class T> SG_HD static T f(T x) { return x * cdf(x); }
  template <class T> SG_HD static T df(T x, T) {
    return cdf(x) + x * T(0.39894228040143267794) * math::exp(T(-0.5) * x * x);
  }
};

struct GeluTanh {  // Hendrycks and Gimpel, "Gaussian error linear units", 2016, section 2
  static constexpr char name[] = "gelu_tanh";
  static constexpr Saves saves = kInput;
  template <class T> SG_HD static T inner(T x) {
    return T(0.79788456080286535588) * (x + T(0.044715) * x * x * x);
  }
  template <class T> SG_HD static T f(T x) { return T(0.5) * x * (T(1) + math::tanh(inner(x))); }
  template <class T> SG_HD static T df(T x, T) {
    const T t = math::tanh(inner(x));
    const T slope = T(0.79788456080286535588) * (T(1) + T(3 * 0.044715) * x * x);
    return T(0.5) * (T(1) + t) + T(0.5) * x * (T(1) - t * t) * slope;
  }
};

struct Silu {
  static constexpr char name[] = "silu";
  static constexpr Saves saves = kInput;
  template <class T> SG_HD static T f(T x) { return x * math::sigmoid(x); }
  template <class T> SG_HD static T df(T x, T) {
    const T s = math::sigmoid(x);
    return s * (T(1) + x * (T(1) - s));
  }
};

struct Softplus {  // beta 1, linear above 20
  static constexpr char name[] = "softplus";
  static constexpr Saves saves = kInput;
  template <class T> SG_HD static T f(T x) {
    const T y = math::log1p(math::exp(x > 20 ? T(20) : x));
    return x > 20 ? x : y;
  }
  template <class T> SG_HD static T df(T x, T) { return x > 20 ? T(1) : math::sigmoid(x); }
};

struct Elu {  // alpha 1
  static constexpr char name[] = "elu";
  static constexpr Saves saves = kOutput;
  template <class T> SG_HD static T f(T x) {
    const T y = math::expm1(x > 0 ? T(0) : x);
    return x > 0 ? x : y;
  }
  template <class T> SG_HD static T df(T, T y) { return y > 0 ? T(1) : y + T(1); }
};

struct LeakyRelu {
  static constexpr char name[] = "leaky_relu";
  static constexpr Saves saves = kInput;
  template <class T> SG_HD static T f(T x, T slope, T) { return x > 0 ? x : x * slope; }
  template <class T> SG_HD static T df(T x, T, T slope, T) { return x > 0 ? T(1) : slope; }
};

struct Pow {
  static constexpr char name[] = "pow";
  static constexpr Saves saves = kInput;
  template <class T> SG_HD static T f(T x, T e, T) {
    if (e == T(2)) return x * x;
    if (e == T(3)) return x * x * x;
    if (e == T(0.5)) return math::sqrt(x);
    return math::pow(x, e);
  }
  template <class T> SG_HD static T df(T x, T, T e, T) {
    if (e == T(0)) return T(0);
    if (e == T(2)) return x + x;
    if (e == T(3)) return T(3) * x * x;
    return e * math::pow(x, e - T(1));
  }
};

struct Clamp {
  static constexpr char name[] = "clamp";
  static constexpr Saves saves = kInput;
  static constexpr bool integers = true;
  template <class T> SG_HD static T f(T x, T low, T high) {
    const T y = x < low ? low : x;
    return y > high ? high : y;
  }
  template <class T> SG_HD static T df(T x, T, T low, T high) {
    return x > low && x < high ? T(1) : T(0);
  }
};

struct AddScalar {
  static constexpr char name[] = "add_scalar";
  static constexpr Saves saves = kNone;
  static constexpr bool df_is_one = true;
  static constexpr bool integers = true;
  template <class T> SG_HD static T f(T x, T a, T) { return static_cast<T>(x + a); }
  template <class T> SG_HD static T df(T, T, T, T) { return T(1); }
};

struct MulScalar {
  static constexpr char name[] = "mul_scalar";
  static constexpr Saves saves = kNone;
  static constexpr bool integers = true;
  template <class T> SG_HD static T f(T x, T a, T) { return static_cast<T>(x * a); }
  template <class T> SG_HD static T df(T, T, T a, T) { return a; }
};

// ---- binary

struct Add {
  static constexpr char name[] = "add";
  static constexpr Saves da_saves = kNone, db_saves = kNone;
  static constexpr bool da_is_one = true, db_is_one = true;
  static constexpr bool integers = true;
  template <class T> SG_HD static T f(T a, T b) { return static_cast<T>(a + b); }
  template <class T> SG_HD static T da(T, T) { return T(1); }
  template <class T> SG_HD static T db(T, T) { return T(1); }
};

struct Sub {
  static constexpr char name[] = "sub";
  static constexpr Saves da_saves = kNone, db_saves = kNone;
  static constexpr bool da_is_one = true;
  static constexpr bool integers = true;
  template <class T> SG_HD static T f(T a, T b) { return static_cast<T>(a - b); }
  template <class T> SG_HD static T da(T, T) { return T(1); }
  template <class T> SG_HD static T db(T, T) { return T(-1); }
};

struct Mul {
  static constexpr char name[] = "mul";
  static constexpr Saves da_saves = kSecond, db_saves = kFirst;
  static constexpr bool integers = true;
  template <class T> SG_HD static T f(T a, T b) { return static_cast<T>(a * b); }
  template <class T> SG_HD static T da(T, T b) { return b; }
  template <class T> SG_HD static T db(T a, T) { return a; }
};

struct Div {
  static constexpr char name[] = "div";
  static constexpr Saves da_saves = kSecond, db_saves = kBoth;
  template <class T> SG_HD static T f(T a, T b) { return a / b; }
  template <class T> SG_HD static T da(T, T b) { return T(1) / b; }
  template <class T> SG_HD static T db(T a, T b) { return -(a / b) / b; }
};

struct Maximum {  // NaN wins; ties share the gradient
  static constexpr char name[] = "maximum";
  static constexpr Saves da_saves = kBoth, db_saves = kBoth;
  static constexpr bool integers = true;
  template <class T> SG_HD static T f(T a, T b) { return a > b || a != a ? a : b; }
  template <class T> SG_HD static T da(T a, T b) { return a > b ? T(1) : a == b ? T(0.5) : T(0); }
  template <class T> SG_HD static T db(T a, T b) { return b > a ? T(1) : a == b ? T(0.5) : T(0); }
};

struct Minimum {
  static constexpr char name[] = "minimum";
  static constexpr Saves da_saves = kBoth, db_saves = kBoth;
  static constexpr bool integers = true;
  template <class T> SG_HD static T f(T a, T b) { return a < b || a != a ? a : b; }
  template <class T> SG_HD static T da(T a, T b) { return a < b ? T(1) : a == b ? T(0.5) : T(0); }
  template <class T> SG_HD static T db(T a, T b) { return b < a ? T(1) : a == b ? T(0.5) : T(0); }
};

// ---- comparisons: 1 or 0, not differentiated

struct Eq {
  static constexpr char name[] = "eq";
  template <class T> SG_HD static bool f(T a, T b) { return a == b; }
};
struct Ne {
  static constexpr char name[] = "ne";
  template <class T> SG_HD static bool f(T a, T b) { return a != b; }
};
struct Lt {
  static constexpr char name[] = "lt";
  template <class T> SG_HD static bool f(T a, T b) { return a < b; }
};
struct Le {
  static constexpr char name[] = "le";
  template <class T> SG_HD static bool f(T a, T b) { return a <= b; }
};
struct Gt {
  static constexpr char name[] = "gt";
  template <class T> SG_HD static bool f(T a, T b) { return a > b; }
};
struct Ge {
  static constexpr char name[] = "ge";
  template <class T> SG_HD static bool f(T a, T b) { return a >= b; }
};

// clang-format on

// ---- the lists

template <class... Ops>
struct List {
  static constexpr int count = static_cast<int>(sizeof...(Ops));
};

using Unary =
    List<Neg, Abs, Exp, Log, Sqrt, Rsqrt, Square, Reciprocal, Sin, Cos, Tanh, Erf, Sigmoid, Relu,
         Gelu, GeluTanh, Silu, Softplus, Elu, LeakyRelu, Pow, Clamp, AddScalar, MulScalar>;
using Binary = List<Add, Sub, Mul, Div, Maximum, Minimum>;
using Compare = List<Eq, Ne, Lt, Le, Gt, Ge>;

/// Calls visit(Op{}) for every op of a list, in order.
template <class... Ops, class F>
constexpr void for_each(List<Ops...>, F&& visit) {
  (visit(Ops{}), ...);
}

/// Position of Op in a list.
template <class Op, class L>
inline constexpr int index_of = -1;
template <class Op, class... Ops>
inline constexpr int index_of<Op, List<Ops...>> = [] {
  const bool same[] = {std::is_same_v<Op, Ops>...};
  for (int i = 0; i < static_cast<int>(sizeof...(Ops)); ++i)
    if (same[i]) return i;
  return -1;
}();

template <class Op>
inline constexpr bool takes_parameters = requires(float x) {
  Op::f(x, x, x);
};
template <class Op>
inline constexpr bool has_integers = requires {
  Op::integers;
};
template <class Op>
constexpr Saves saves_of() {
  if constexpr (requires { Op::saves; })
    return Op::saves;
  else
    return kBoth;
}

}  // namespace sg::ew
