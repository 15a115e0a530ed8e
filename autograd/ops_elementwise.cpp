#include "autograd/elementwise.h"
#include "autograd/ops.h"

namespace sg {

Var neg(const Var& x) { return elementwise<ew::Neg>(x); }
Var abs(const Var& x) { return elementwise<ew::Abs>(x); }
Var exp(const Var& x) { return elementwise<ew::Exp>(x); }
Var log(const Var& x) { return elementwise<ew::Log>(x); }
Var sqrt(const Var& x) { return elementwise<ew::Sqrt>(x); }
Var rsqrt(const Var& x) { return elementwise<ew::Rsqrt>(x); }
Var square(const Var& x) { return elementwise<ew::Square>(x); }
Var reciprocal(const Var& x) { return elementwise<ew::Reciprocal>(x); }
Var sin(const Var& x) { return elementwise<ew::Sin>(x); }
Var cos(const Var& x) { return elementwise<ew::Cos>(x); }
Var tanh(const Var& x) { return elementwise<ew::Tanh>(x); }
Var erf(const Var& x) { return elementwise<ew::Erf>(x); }
Var sigmoid(const Var& x) { return elementwise<ew::Sigmoid>(x); }
Var relu(const Var& x) { return elementwise<ew::Relu>(x); }
Var gelu(const Var& x) { return elementwise<ew::Gelu>(x); }
Var gelu_tanh(const Var& x) { return elementwise<ew::GeluTanh>(x); }
Var silu(const Var& x) { return elementwise<ew::Silu>(x); }
Var softplus(const Var& x) { return elementwise<ew::Softplus>(x); }
Var elu(const Var& x) { return elementwise<ew::Elu>(x); }
Var leaky_relu(const Var& x, double slope) { return elementwise<ew::LeakyRelu>(x, slope); }
Var pow(const Var& x, double exponent) { return elementwise<ew::Pow>(x, exponent); }
Var clamp(const Var& x, double low, double high) { return elementwise<ew::Clamp>(x, low, high); }

Var add(const Var& a, const Var& b) { return elementwise<ew::Add>(a, b); }
Var sub(const Var& a, const Var& b) { return elementwise<ew::Sub>(a, b); }
Var mul(const Var& a, const Var& b) { return elementwise<ew::Mul>(a, b); }
Var div(const Var& a, const Var& b) { return elementwise<ew::Div>(a, b); }
Var maximum(const Var& a, const Var& b) { return elementwise<ew::Maximum>(a, b); }
Var minimum(const Var& a, const Var& b) { return elementwise<ew::Minimum>(a, b); }
Var add(const Var& a, double b) { return elementwise<ew::AddScalar>(a, b); }
Var mul(const Var& a, double b) { return elementwise<ew::MulScalar>(a, b); }

Var where(const Tensor& condition, const Var& a, const Var& b) {
  const Tensor x = a.value(), y = b.value();
  return record("where", {a, b}, ops::where(condition, x, y),
                [condition = Saved(condition)](Backward& back) {
                  const Tensor g = back.grad(), c = condition.get();
                  const Tensor zero = Tensor::zeros({}, g.dtype(), g.device());
                  if (back.needs(0)) back.set(0, ops::where(c, g, zero));
                  if (back.needs(1)) back.set(1, ops::where(c, zero, g));
                });
}

}  // namespace sg
