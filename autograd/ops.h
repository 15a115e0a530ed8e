// Differentiable ops. Shapes broadcast by NumPy's rule; mixed dtypes are an error (cast() one
// side). Names, formulas and edge cases are PyTorch's. `dims` empty means all dimensions; negative
// dimensions count from the end.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "autograd/var.h"

namespace sg {

/// Keeps reduced dimensions with size 1: mean(x, {-1}, keep).
inline constexpr bool keep = true;

// ---- elementwise, one argument (the list in core/kernels/elementwise_list.h drives tables,
// gradcheck and oracle tests)
Var neg(const Var& x);
Var abs(const Var& x);
Var exp(const Var& x);
Var log(const Var& x);
Var sqrt(const Var& x);
Var rsqrt(const Var& x);
Var square(const Var& x);
Var reciprocal(const Var& x);
Var sin(const Var& x);
Var cos(const Var& x);
Var tanh(const Var& x);
Var erf(const Var& x);
Var sigmoid(const Var& x);
Var relu(const Var& x);
Var gelu(const Var& x);       ///< exact, by erf
Var gelu_tanh(const Var& x);  ///< tanh approximation
Var silu(const Var& x);
Var softplus(const Var& x);
Var elu(const Var& x);
Var leaky_relu(const Var& x, double slope = 0.01);
Var pow(const Var& x, double exponent);
Var clamp(const Var& x, double low, double high);

// ---- elementwise, two arguments, with broadcasting
Var add(const Var& a, const Var& b);
Var sub(const Var& a, const Var& b);
Var mul(const Var& a, const Var& b);
Var div(const Var& a, const Var& b);
Var maximum(const Var& a, const Var& b);
Var minimum(const Var& a, const Var& b);
/// condition (u8, not differentiated) ? a : b
Var where(const Tensor& condition, const Var& a, const Var& b);
Var add(const Var& a, double b);
Var mul(const Var& a, double b);

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

// ---- reductions
Var sum(const Var& x, const Dims& dims = {}, bool keep_dims = false);
Var mean(const Var& x, const Dims& dims = {}, bool keep_dims = false);
/// Gradient is shared equally among ties, as torch.amax.
Var amax(const Var& x, const Dims& dims = {}, bool keep_dims = false);
Var amin(const Var& x, const Dims& dims = {}, bool keep_dims = false);
/// Variance with `correction` subtracted from the count.
Var var(const Var& x, const Dims& dims = {}, int correction = 1, bool keep_dims = false);
inline Var sum(const Var& x, std::int64_t dim, bool keep_dims = false) {
  return sum(x, Dims{dim}, keep_dims);
}
inline Var mean(const Var& x, std::int64_t dim, bool keep_dims = false) {
  return mean(x, Dims{dim}, keep_dims);
}

// ---- matrix products
/// [..., m, k] x [..., k, n] -> [..., m, n], batch dimensions broadcast; 1-dimensional arguments as
/// torch.matmul.
Var matmul(const Var& a, const Var& b);
/// x [..., in], weight [out, in] (PyTorch's layout), bias [out] or undefined -> [..., out]. `relu`
/// is fused.
Var linear(const Var& x, const Var& weight, const Var& bias = {}, bool relu = false);

// ---- shape
Var reshape(const Var& x, const Shape& shape);
Var flatten(const Var& x, std::int64_t start_dim = 0, std::int64_t end_dim = -1);
Var transpose(const Var& x, std::int64_t a, std::int64_t b);
Var permute(const Var& x, const Dims& order);
Var expand(const Var& x, const Shape& shape);
Var unsqueeze(const Var& x, std::int64_t dim);
Var squeeze(const Var& x, std::int64_t dim);
Var slice(const Var& x, std::int64_t dim, std::int64_t start, std::int64_t length,
          std::int64_t step = 1);
Var select(const Var& x, std::int64_t dim, std::int64_t index);
Var cat(std::span<const Var> xs, std::int64_t dim);
Var stack(std::span<const Var> xs, std::int64_t dim);
/// Constant padding; `widths` as torch.nn.functional.pad: (last dim left, right, next-to-last left,
/// right, ...).
Var pad(const Var& x, const Dims& widths, double value = 0);
Var contiguous(const Var& x);
Var cast(const Var& x, DType dtype);

// ---- rows
Var softmax(const Var& x, std::int64_t dim);
Var log_softmax(const Var& x, std::int64_t dim);
/// Over the last dimensions, whose sizes weight and bias (either may be undefined) have.
Var layer_norm(const Var& x, const Shape& normalized, const Var& weight, const Var& bias,
               double eps = 1e-5);
/// indices (i64, any shape) -> indices.shape + [dim]; the row `padding_index` gets no gradient (-1:
/// none).
Var embedding(const Tensor& indices, const Var& weight, std::int64_t padding_index = -1);
/// Zeroes elements with probability p and scales the rest by 1 / (1 - p). The mask is keyed by
/// (seed, step, position in the global batch, `site`, element), dimension 0 being the batch: the
/// same for any number of ranks.
Var dropout(const Var& x, double p, std::uint64_t site, bool training = true);

// ---- losses
enum class Reduction { none, sum, mean };
/// logits [N, C, ...], targets i64 [N, ...] or class probabilities of logits' shape. Targets equal
/// to ignore_index do not count; an index outside [0, C) is an error that names it.
Var cross_entropy(const Var& logits, const Tensor& targets, Reduction reduction = Reduction::mean,
                  std::int64_t ignore_index = -100, double label_smoothing = 0);
Var mse_loss(const Var& x, const Var& target, Reduction reduction = Reduction::mean);

}  // namespace sg
