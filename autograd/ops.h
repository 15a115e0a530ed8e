// Differentiable ops. Shapes broadcast by NumPy's rule; mixed dtypes or devices are an error
// (cast() one side). Names, formulas and edge cases are PyTorch's. `dims` empty means all
// dimensions; negative dimensions count from the end, one outside [-rank, rank) is an error (the
// result's rank where there is a new dimension). Errors name the op and the shapes or dtypes that
// do not fit.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "autograd/var.h"
#include "core/loss_options.h"

namespace sg {

/// Keeps reduced dimensions with size 1: mean(x, {-1}, keep).
inline constexpr bool keep = true;

// ---- elementwise, one argument (the list in core/kernels/elementwise_list.h drives tables,
// gradcheck and oracle tests). The result has x's shape and dtype; values of 16 bits are computed
// in f32. Integers are an error, except for those ops that say so.

Var neg(const Var& x);         ///< -x; integers, too
Var abs(const Var& x);         ///< |x|; gradient 0 at 0
Var exp(const Var& x);         ///< e^x
Var log(const Var& x);         ///< the natural logarithm
Var sqrt(const Var& x);        ///< x^(1/2)
Var rsqrt(const Var& x);       ///< x^(-1/2)
Var square(const Var& x);      ///< x^2; integers, too
Var reciprocal(const Var& x);  ///< 1 / x
Var sin(const Var& x);         ///< of radians
Var cos(const Var& x);         ///< of radians
Var tanh(const Var& x);        ///< the hyperbolic tangent
Var erf(const Var& x);         ///< the error function
Var sigmoid(const Var& x);     ///< 1 / (1 + e^-x)
Var relu(const Var& x);        ///< max(x, 0); gradient 0 at 0; NaN stays NaN; integers, too
/// x Phi(x), exact, by erf (Hendrycks and Gimpel, "Gaussian error linear units", 2016).
Var gelu(const Var& x);
/// Its approximation by tanh (section 2 there).
Var gelu_tanh(const Var& x);
/// x sigmoid(x).
Var silu(const Var& x);
/// log(1 + e^x); x itself above 20.
Var softplus(const Var& x);
/// x for x > 0, else e^x - 1.
Var elu(const Var& x);
/// x for x > 0, else slope x.
Var leaky_relu(const Var& x, double slope = 0.01);
/// x^exponent. The exponent is a constant; for 0 the gradient is 0 everywhere.
Var pow(const Var& x, double exponent);
/// x limited to [low, high]; gradient 0 at the limits and beyond. Integers, too.
Var clamp(const Var& x, double low, double high);

// ---- elementwise, two arguments. The result has the shape both broadcast to, gradients are summed
// back to the arguments' shapes. Shapes that do not broadcast are an error. All but div take
// integers, too.

Var add(const Var& a, const Var& b);  ///< a + b
Var sub(const Var& a, const Var& b);  ///< a - b
Var mul(const Var& a, const Var& b);  ///< a b, element by element
Var div(const Var& a, const Var& b);  ///< a / b; integers are an error
/// The larger one; NaN wins, and equal values share the gradient.
Var maximum(const Var& a, const Var& b);
/// The smaller one; NaN wins, and equal values share the gradient.
Var minimum(const Var& a, const Var& b);
/// condition ? a : b, all three broadcast. Error: the condition (not differentiated) is not u8.
Var where(const Tensor& condition, const Var& a, const Var& b);
Var add(const Var& a, double b);  ///< a + b
Var mul(const Var& a, double b);  ///< a b

// Operators: the functions above, / by a number as mul by its reciprocal. The number is taken in
// the tensor's dtype: truncated if that is an integer's.
inline Var operator+(const Var& a, const Var& b) { return add(a, b); }
inline Var operator-(const Var& a, const Var& b) { return sub(a, b); }
inline Var operator*(const Var& a, const Var& b) { return mul(a, b); }
inline Var operator/(const Var& a, const Var& b) { return div(a, b); }
inline Var operator-(const Var& a) { return neg(a); }
inline Var operator+(const Var& a, double b) { return add(a, b); }
inline Var operator+(double a, const Var& b) { return add(b, a); }
inline Var operator-(const Var& a, double b) { return add(a, -b); }
inline Var operator-(double a, const Var& b) { return add(neg(b), a); }
inline Var operator*(const Var& a, double b) { return mul(a, b); }
inline Var operator*(double a, const Var& b) { return mul(b, a); }
inline Var operator/(const Var& a, double b) { return mul(a, 1.0 / b); }

// ---- reductions. The dimensions `dims` disappear from the shape, or stay with size 1 if
// `keep_dims`. A dimension that is named twice is an error.

/// Integers add up to i64; of no elements 0.
Var sum(const Var& x, const Dims& dims = {}, bool keep_dims = false);
/// Integers are an error; of no elements NaN.
Var mean(const Var& x, const Dims& dims = {}, bool keep_dims = false);
/// The maximum; NaN wins. Its gradient is shared equally among ties, as torch.amax. Error: of no
/// elements.
Var amax(const Var& x, const Dims& dims = {}, bool keep_dims = false);
/// The minimum, as amax.
Var amin(const Var& x, const Dims& dims = {}, bool keep_dims = false);
/// Variance: the sum of squared differences from the mean over count - correction, not finite if
/// that is not positive. Integers are an error.
Var var(const Var& x, const Dims& dims = {}, int correction = 1, bool keep_dims = false);
// Over one dimension.
inline Var sum(const Var& x, std::int64_t dim, bool keep_dims = false) {
  return sum(x, Dims{dim}, keep_dims);
}
inline Var mean(const Var& x, std::int64_t dim, bool keep_dims = false) {
  return mean(x, Dims{dim}, keep_dims);
}

// ---- matrix products
/// [..., m, k] x [..., k, n] -> [..., m, n], batch dimensions broadcast; 1-dimensional arguments as
/// torch.matmul. Errors: inner sizes differ, integers, an argument without dimensions.
Var matmul(const Var& a, const Var& b);
/// x [..., in], weight [out, in] (PyTorch's layout), bias [out] or undefined -> [..., out]. `relu`
/// is fused. Sizes that do not fit are an error.
Var linear(const Var& x, const Var& weight, const Var& bias = {}, bool relu = false);

// ---- shape. Those that are views share x's bytes: a change in place shows in both.
/// The same elements in row-major order in another shape: a view where strides allow it, else a
/// copy. One size may be -1. Error: another number of elements.
Var reshape(const Var& x, const Shape& shape);
/// Dimensions start_dim to end_dim (inclusive) as one, as reshape; of a scalar, [1]. Error: start
/// after end.
Var flatten(const Var& x, std::int64_t start_dim = 0, std::int64_t end_dim = -1);
/// A view with dimensions a and b swapped.
Var transpose(const Var& x, std::int64_t a, std::int64_t b);
/// A view whose dimension i is x's order[i]. Error: `order` has not each dimension once.
Var permute(const Var& x, const Dims& order);
/// A view broadcast to `shape`, without copies: dimensions of size 1 are repeated, others added in
/// front. Error: x does not broadcast to it.
Var expand(const Var& x, const Shape& shape);
/// A dimension of size 1 at place `dim` of the result.
Var unsqueeze(const Var& x, std::int64_t dim);
/// Without dimension `dim`. Error: its size is not 1.
Var squeeze(const Var& x, std::int64_t dim);
/// A view of `length` elements of a dimension from `start` on, every step-th. Errors: elements
/// outside the dimension (a negative start is outside), a step below 1.
Var slice(const Var& x, std::int64_t dim, std::int64_t start, std::int64_t length,
          std::int64_t step = 1);
/// A view of one index of a dimension, which disappears; a negative index counts from the end.
/// Error: an index outside.
Var select(const Var& x, std::int64_t dim, std::int64_t index);
/// One after the other along `dim`; gradients are slices. Errors: none given, shapes that differ in
/// another dimension.
Var cat(std::span<const Var> xs, std::int64_t dim);
/// Side by side along a new dimension, at place `dim` of the result. Errors: none given, shapes
/// that differ.
Var stack(std::span<const Var> xs, std::int64_t dim);
/// Constant padding; `widths` as torch.nn.functional.pad: (last dim left, right, next-to-last left,
/// right, ...). Negative widths crop. Errors: half a pair, more pairs than dimensions, more cropped
/// than there is.
Var pad(const Var& x, const Dims& widths, double value = 0);
/// The same values in row-major order: x's own bytes if they lie so, else a copy.
Var contiguous(const Var& x);
/// The same values as `dtype`, x itself if it has it. The gradient is cast back; to or from
/// integers there is none.
Var cast(const Var& x, DType dtype);

// ---- rows. For softmax, log_softmax, layer_norm and dropout integers are an error; values of 16
// bits are computed in f32.
/// exp(x) / sum(exp(x)) along `dim`, in x's shape; the maximum is subtracted first.
Var softmax(const Var& x, std::int64_t dim);
/// x - log(sum(exp(x))) along `dim`, in x's shape.
Var log_softmax(const Var& x, std::int64_t dim);
/// (x - mean) / sqrt(variance + eps) weight + bias over the last dimensions, whose sizes are
/// `normalized` and which weight and bias (either may be undefined) have (Ba et al., "Layer
/// normalization", 2016). Error: other sizes.
Var layer_norm(const Var& x, const Shape& normalized, const Var& weight, const Var& bias,
               double eps = 1e-5);
/// indices (i64, any shape), weight [rows, dim] -> indices.shape + [dim]; the row `padding_index`
/// gets no gradient (-1: none). An index outside [0, rows) is an error that names it.
Var embedding(const Tensor& indices, const Var& weight, std::int64_t padding_index = -1);
/// Zeroes elements with probability p and scales the rest by 1 / (1 - p); x itself if p is 0 or not
/// in training. The mask is keyed by (seed, step, position in the global batch, `site`, element),
/// dimension 0 being the batch: the same for any number of ranks. Error: p outside [0, 1].
Var dropout(const Var& x, double p, std::uint64_t site, bool training = true);

// ---- losses: scalars, or with Reduction::none a value for each target
/// logits [N, C, ...] or [C], targets i64 [N, ...] or class probabilities of logits' shape and
/// dtype. Targets equal to ignore_index do not count; one outside [0, C) is an error that names it,
/// as are shapes that do not fit and a label smoothing outside [0, 1].
Var cross_entropy(const Var& logits, const Tensor& targets,
                  const CrossEntropyOptions& options = {});
/// Squares of the differences. Error: the shapes differ; they do not broadcast.
Var mse_loss(const Var& x, const Var& target, Reduction reduction = Reduction::mean);

}  // namespace sg
