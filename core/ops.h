// Tensor functions without gradients; autograd/ops.h has the differentiable ones, by the same
// names. Shapes broadcast by NumPy's rule, mixed dtypes are an error. Elementwise results keep the
// memory order of a dense argument (channels-last in, channels-last out). On `meta` only shapes are
// computed.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "core/kernels/elementwise_list.h"
#include "core/loss_options.h"
#include "core/rank.h"
#include "core/tensor.h"

namespace sg::ops {

// ---- elementwise (the structs of core/kernels/elementwise_list.h name the op)

namespace detail {
Tensor unary(int op, const char* name, const Tensor& x, double a, double b);
Tensor unary_grad(int op, const char* name, const Tensor& x, const Tensor& y, const Tensor& grad,
                  double a, double b);
Tensor binary(int op, const char* name, const Tensor& a, const Tensor& b);
Tensor binary_grad(int op, const char* name, bool of_first, const Tensor& a, const Tensor& b,
                   const Tensor& grad);
Tensor compare(int op, const char* name, const Tensor& a, const Tensor& b);
}  // namespace detail

/// y = Op::f(x), with parameters a, b where the op takes them.
template <class Op>
Tensor unary(const Tensor& x, double a = 0, double b = 0) {
  return detail::unary(ew::index_of<Op, ew::Unary>, Op::name, x, a, b);
}
/// grad * Op::df(x, y). Only what Op::saves names is read: the other of x and y may be undefined.
template <class Op>
Tensor unary_grad(const Tensor& x, const Tensor& y, const Tensor& grad, double a = 0,
                  double b = 0) {
  return detail::unary_grad(ew::index_of<Op, ew::Unary>, Op::name, x, y, grad, a, b);
}
/// y = Op::f(a, b), broadcast.
template <class Op>
Tensor binary(const Tensor& a, const Tensor& b) {
  return detail::binary(ew::index_of<Op, ew::Binary>, Op::name, a, b);
}
/// grad * Op::da(a, b), or db, in grad's shape. What the derivative does not read may be undefined.
template <class Op>
Tensor binary_grad(bool of_first, const Tensor& a, const Tensor& b, const Tensor& grad) {
  return detail::binary_grad(ew::index_of<Op, ew::Binary>, Op::name, of_first, a, b, grad);
}
/// u8, 1 where the comparison holds.
template <class Op>
Tensor compare(const Tensor& a, const Tensor& b) {
  return detail::compare(ew::index_of<Op, ew::Compare>, Op::name, a, b);
}

// By name; formulas and dtypes as in autograd/ops.h.
inline Tensor neg(const Tensor& x) { return unary<ew::Neg>(x); }
inline Tensor exp(const Tensor& x) { return unary<ew::Exp>(x); }
inline Tensor log(const Tensor& x) { return unary<ew::Log>(x); }
inline Tensor sqrt(const Tensor& x) { return unary<ew::Sqrt>(x); }
inline Tensor rsqrt(const Tensor& x) { return unary<ew::Rsqrt>(x); }
inline Tensor square(const Tensor& x) { return unary<ew::Square>(x); }
inline Tensor relu(const Tensor& x) { return unary<ew::Relu>(x); }
/// Gradient of relu from its output: grad where y > 0.
inline Tensor relu_grad(const Tensor& y, const Tensor& grad) {
  return unary_grad<ew::Relu>({}, y, grad);
}
// Of two arguments, broadcast.
inline Tensor add(const Tensor& a, const Tensor& b) { return binary<ew::Add>(a, b); }
inline Tensor sub(const Tensor& a, const Tensor& b) { return binary<ew::Sub>(a, b); }
inline Tensor mul(const Tensor& a, const Tensor& b) { return binary<ew::Mul>(a, b); }
inline Tensor div(const Tensor& a, const Tensor& b) { return binary<ew::Div>(a, b); }
inline Tensor maximum(const Tensor& a, const Tensor& b) { return binary<ew::Maximum>(a, b); }
inline Tensor minimum(const Tensor& a, const Tensor& b) { return binary<ew::Minimum>(a, b); }
inline Tensor add(const Tensor& a, double b) { return unary<ew::AddScalar>(a, b); }
inline Tensor mul(const Tensor& a, double b) { return unary<ew::MulScalar>(a, b); }
// Comparisons, broadcast: u8, 1 where they hold.
inline Tensor eq(const Tensor& a, const Tensor& b) { return compare<ew::Eq>(a, b); }
inline Tensor ne(const Tensor& a, const Tensor& b) { return compare<ew::Ne>(a, b); }
inline Tensor lt(const Tensor& a, const Tensor& b) { return compare<ew::Lt>(a, b); }
inline Tensor le(const Tensor& a, const Tensor& b) { return compare<ew::Le>(a, b); }
inline Tensor gt(const Tensor& a, const Tensor& b) { return compare<ew::Gt>(a, b); }
inline Tensor ge(const Tensor& a, const Tensor& b) { return compare<ew::Ge>(a, b); }

/// In place, counted as a change: into += x, x broadcasting to into's shape.
void add_(const Tensor& into, const Tensor& x);
/// In place, counted as a change: into *= factor.
void mul_(const Tensor& into, double factor);
/// condition ? a : b, all three broadcast. Error: the condition is not u8.
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);

// ---- reductions; `dims` empty means all dimensions. f32 is added in blocks whose sums are added
// in double, in an order that depends on the shape alone. A dimension named twice is an error.
/// Integers add up to i64; of no elements 0.
Tensor sum(const Tensor& x, const Dims& dims = {}, bool keep_dims = false);
/// Integers are an error; of no elements NaN.
Tensor mean(const Tensor& x, const Dims& dims = {}, bool keep_dims = false);
/// The maximum; NaN wins. An error for no elements.
Tensor amax(const Tensor& x, const Dims& dims = {}, bool keep_dims = false);
/// The minimum, as amax.
Tensor amin(const Tensor& x, const Dims& dims = {}, bool keep_dims = false);
/// The sum of squared differences from the mean over count - correction (not finite if that is not
/// positive). Integers are an error.
Tensor var(const Tensor& x, const Dims& dims = {}, int correction = 1, bool keep_dims = false);
/// Index (i64) of the first maximum along a dimension.
Tensor argmax(const Tensor& x, std::int64_t dim, bool keep_dims = false);
/// Undoes broadcasting: sums the dimensions in which `shape` has size 1 or none. x itself if
/// nothing is to be done.
Tensor sum_to(const Tensor& x, const Shape& shape);
/// The same, written to `out` (which must be of the wanted shape).
void sum_to(const Tensor& x, const Tensor& out);
/// The shape of a reduction's result.
Shape reduced_shape(std::string_view op, const Shape& shape, const Dims& dims, bool keep_dims);

// ---- matrix products
/// [..., m, k] x [..., k, n], batch dimensions broadcast; 1-dimensional arguments as torch.matmul.
/// Transposed operands are read in place. Errors: inner sizes differ, integers, an argument without
/// dimensions.
Tensor matmul(const Tensor& a, const Tensor& b);
/// out = a b for two matrices, overwriting out. Errors: sizes do not fit, out is not contiguous.
void matmul_into(const Tensor& out, const Tensor& a, const Tensor& b);
/// x [..., in], weight [out, in], bias [out] or undefined -> [..., out]; relu of it if asked.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {}, bool relu = false);

// ---- shape
/// One after the other along `dim`, channels-last if all are. Errors: none given, shapes that
/// differ in another dimension.
Tensor cat(std::span<const Tensor> xs, std::int64_t dim);
/// Constant padding; widths (last dim left, right, next-to-last left, right, ...), as
/// torch.nn.functional.pad. Negative widths crop. Errors: half a pair, more pairs than dimensions,
/// more cropped than there is.
Tensor pad(const Tensor& x, const Dims& widths, double value = 0);

// ---- rows. For softmax, log_softmax and layer_norm integers are an error; values of 16 bits are
// computed in f32.
/// exp(x) / sum(exp(x)) along `dim`, in x's shape.
Tensor softmax(const Tensor& x, std::int64_t dim);
/// The gradient of x from softmax's result y and its gradient, all of one shape.
Tensor softmax_grad(const Tensor& y, const Tensor& grad, std::int64_t dim);
/// x - log(sum(exp(x))) along `dim`, in x's shape.
Tensor log_softmax(const Tensor& x, std::int64_t dim);
/// The gradient of x from log_softmax's result y and its gradient, all of one shape.
Tensor log_softmax_grad(const Tensor& y, const Tensor& grad, std::int64_t dim);

/// Mean and 1 / sqrt(variance + eps) of each row, in the compute type (f32 for 16-bit values), kept
/// for the gradient.
struct LayerNorm {
  Tensor y, mean, rstd;
};
/// Rows are the last dimensions, which must equal `normalized`; weight and bias have that shape or
/// are undefined.
LayerNorm layer_norm(const Tensor& x, const Shape& normalized, const Tensor& weight,
                     const Tensor& bias, double eps);
/// The gradient of x, in x's shape and dtype; `mean` and `rstd` are layer_norm's, weight may be
/// undefined.
Tensor layer_norm_grad_x(const Tensor& x, const Tensor& weight, const Tensor& mean,
                         const Tensor& rstd, const Tensor& grad, const Shape& normalized);
/// Sums over rows of grad * (x - mean) * rstd and of grad, written to those that are defined
/// (contiguous).
void layer_norm_grad_affine(const Tensor& x, const Tensor& mean, const Tensor& rstd,
                            const Tensor& grad, const Shape& normalized, const Tensor& grad_weight,
                            const Tensor& grad_bias);

/// Rows of weight [rows, dim]; an index (i64) outside [0, rows) is an error that names it.
Tensor embedding(const Tensor& indices, const Tensor& weight);
/// Overwrites grad_weight with the sums of grad's rows by index, in the order of the indices.
void embedding_grad(const Tensor& indices, const Tensor& grad, std::int64_t padding_index,
                    const Tensor& grad_weight);

/// What a dropout mask is a function of. `current` reads the current rank's seed and step.
struct DropoutKey {
  std::uint64_t seed = 0;
  std::uint64_t site = 0;
  StepState state;
  static DropoutKey current(std::uint64_t site);
};
/// x / (1 - p) where the mask keeps it, else 0; the same function serves forward and backward.
/// Dimension 0 is the batch: sample i is number state.first_sample + i, its elements are numbered
/// in row-major order.
Tensor dropout(const Tensor& x, double p, const DropoutKey& key);

// ---- losses
struct CrossEntropy {
  Tensor loss;   ///< [] or, unreduced, targets' shape
  Tensor stats;  ///< [rows, 2]: log(sum(exp(logits))) in two parts, in the compute type, kept for
                 ///< the gradient
};
/// logits [N, C, ...] (or [C]), targets i64 [N, ...] or class probabilities of logits' shape and
/// dtype. Errors: integer logits, shapes that do not fit, label smoothing outside [0, 1], a target
/// that is neither in [0, C) nor ignore_index.
CrossEntropy cross_entropy(const Tensor& logits, const Tensor& targets,
                           const CrossEntropyOptions& options);
/// The gradient of the logits, in their shape and dtype. `stats` are cross_entropy's, `grad` is
/// that of its loss, in the loss's shape.
Tensor cross_entropy_grad(const Tensor& logits, const Tensor& stats, const Tensor& targets,
                          const CrossEntropyOptions& options, const Tensor& grad);

}  // namespace sg::ops
