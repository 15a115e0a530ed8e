#include "autograd/node.h"
#include "autograd/ops.h"
#include "core/ops.h"

namespace sg {
namespace {

Saved save_if(bool wanted, const Tensor& tensor) { return wanted ? Saved(tensor) : Saved(); }

template <class Op>
Var unary(const Var& x, double a = 0, double b = 0) {
  constexpr unsigned saves = ew::saves_of<Op>();
  const Tensor in = x.value(), out = ops::unary<Op>(in, a, b);
  return record(Op::name, {x}, out,
                [x = save_if((saves & ew::kInput) != 0, in), y = save_if((saves & ew::kOutput) != 0, out), a,
                 b](Backward& back) {
                  if constexpr (requires { Op::df_is_one; }) back.set(0, back.grad());
                  else back.set(0, ops::unary_grad<Op>(x.get(), y.get(), back.grad(), a, b));
                });
}

template <class Op>
Var binary(const Var& a, const Var& b) {
  const Tensor x = a.value(), y = b.value();
  const unsigned saves = (a.requires_grad() ? Op::da_saves : 0u) | (b.requires_grad() ? Op::db_saves : 0u);
  return record(Op::name, {a, b}, ops::binary<Op>(x, y),
                [x = save_if((saves & ew::kFirst) != 0, x), y = save_if((saves & ew::kSecond) != 0, y)](Backward& back) {
                  if (back.needs(0)) {
                    if constexpr (requires { Op::da_is_one; }) back.set(0, back.grad());
                    else back.set(0, ops::binary_grad<Op>(true, x.get(), y.get(), back.grad()));
                  }
                  if (back.needs(1)) {
                    if constexpr (requires { Op::db_is_one; }) back.set(1, back.grad());
                    else back.set(1, ops::binary_grad<Op>(false, x.get(), y.get(), back.grad()));
                  }
                });
}

}  // namespace

Var neg(const Var& x) { return unary<ew::Neg>(x); }
Var abs(const Var& x) { return unary<ew::Abs>(x); }
Var exp(const Var& x) { return unary<ew::Exp>(x); }
Var log(const Var& x) { return unary<ew::Log>(x); }
Var sqrt(const Var& x) { return unary<ew::Sqrt>(x); }
Var rsqrt(const Var& x) { return unary<ew::Rsqrt>(x); }
Var square(const Var& x) { return unary<ew::Square>(x); }
Var reciprocal(const Var& x) { return unary<ew::Reciprocal>(x); }
Var sin(const Var& x) { return unary<ew::Sin>(x); }
Var cos(const Var& x) { return unary<ew::Cos>(x); }
Var tanh(const Var& x) { return unary<ew::Tanh>(x); }
Var erf(const Var& x) { return unary<ew::Erf>(x); }
Var sigmoid(const Var& x) { return unary<ew::Sigmoid>(x); }
Var relu(const Var& x) { return unary<ew::Relu>(x); }
Var gelu(const Var& x) { return unary<ew::Gelu>(x); }
Var gelu_tanh(const Var& x) { return unary<ew::GeluTanh>(x); }
Var silu(const Var& x) { return unary<ew::Silu>(x); }
Var softplus(const Var& x) { return unary<ew::Softplus>(x); }
Var elu(const Var& x) { return unary<ew::Elu>(x); }
Var leaky_relu(const Var& x, double slope) { return unary<ew::LeakyRelu>(x, slope); }
Var pow(const Var& x, double exponent) { return unary<ew::Pow>(x, exponent); }
Var clamp(const Var& x, double low, double high) { return unary<ew::Clamp>(x, low, high); }

Var add(const Var& a, const Var& b) { return binary<ew::Add>(a, b); }
Var sub(const Var& a, const Var& b) { return binary<ew::Sub>(a, b); }
Var mul(const Var& a, const Var& b) { return binary<ew::Mul>(a, b); }
Var div(const Var& a, const Var& b) { return binary<ew::Div>(a, b); }
Var maximum(const Var& a, const Var& b) { return binary<ew::Maximum>(a, b); }
Var minimum(const Var& a, const Var& b) { return binary<ew::Minimum>(a, b); }
Var add(const Var& a, double b) { return unary<ew::AddScalar>(a, b); }
Var mul(const Var& a, double b) { return unary<ew::MulScalar>(a, b); }

Var where(const Tensor& condition, const Var& a, const Var& b) {
  const Tensor x = a.value(), y = b.value();
  return record("where", {a, b}, ops::where(condition, x, y), [condition = Saved(condition)](Backward& back) {
    const Tensor g = back.grad(), c = condition.get();
    const Tensor zero = Tensor::zeros({}, g.dtype(), g.device());
    if (back.needs(0)) back.set(0, ops::where(c, g, zero));
    if (back.needs(1)) back.set(1, ops::where(c, zero, g));
  });
}

}  // namespace sg
