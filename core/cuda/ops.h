// The GPU's side of core/ops.h and core/conv.h: what an op calls, after its checks and with its
// result allocated, where its tensors are on cuda. Work is queued on the rank's compute stream.
#pragma once

#include <initializer_list>

#include "core/cuda/elementwise.h"
#include "core/cuda/row_op.h"
#include "core/kernels/conv.h"
#include "core/kernels/pool_geometry.h"
#include "core/kernels/random.h"
#include "core/kernels/reduce.h"
#include "core/kernels/reduce_plan.h"
#include "core/tensor.h"

namespace sg::cuda {

/// out = op(inputs...), broadcasting; `name` is the op's, for errors.
void elementwise(const char* name, const Elementwise& op, const Tensor& out,
                 std::initializer_list<const Tensor*> inputs);

/// Values and casts, between two tensors of equal shape of which one at least is on cuda. A copy to
/// the CPU waits for the values; one from the CPU has read them when it returns.
void copy(const Tensor& source, const Tensor& destination);
void fill(const Tensor& destination, double value);

// ---- ops_reduce.cpp

/// out = fold of x by `plan`, whose strides are in elements of x and out; `centre` as in
/// kernels_reduce.h, or undefined.
void reduce(const char* op, const kernels::ReducePlan& plan, kernels::Fold fold, const Tensor& x,
            const Tensor& centre, double divisor, const Tensor& out);
/// Along a dimension; out i64, contiguous.
void argmax(const Tensor& x, int dim, const Tensor& out);

// ---- ops_rows.cpp. Rows are the last n values' dimension(s), all contiguous; `wide` is the
// compute type.

/// x is the op's argument, or its result for the gradients, which read `grad` besides.
void row_op(RowOp op, std::int64_t n, const Tensor& x, const Tensor& grad, const Tensor& out);
void layer_norm(std::int64_t n, const Tensor& x, const Tensor& weight, const Tensor& bias,
                double eps, const Tensor& y, const Tensor& mean, const Tensor& rstd);
void layer_norm_grad(std::int64_t n, const Tensor& x, const Tensor& weight, const Tensor& grad,
                     const Tensor& mean, const Tensor& rstd, const Tensor& grad_x);
/// Either gradient may be undefined.
void layer_norm_grad_affine(std::int64_t n, const Tensor& x, const Tensor& grad, const Tensor& mean,
                            const Tensor& rstd, const Tensor& grad_weight, const Tensor& grad_bias);

void embedding(const Tensor& indices, const Tensor& weight, const Tensor& out);
void embedding_grad(const Tensor& indices, const Tensor& grad, std::int64_t padding_index,
                    const Tensor& grad_weight);

/// The arguments of cross entropy, classes last.
struct LossRows {
  Tensor logits, targets, stats;
  std::int64_t classes = 0, ignore_index = 0;
  double smoothing = 0;
};
/// each: wide losses of the rows, 0 where the target is ignored.
void cross_entropy(const LossRows& rows, const Tensor& each);
/// out: their sum, divided by the number of rows that count if `mean`.
void loss_total(const LossRows& rows, const Tensor& each, bool mean, const Tensor& out);
/// grad is wide, of one element or one a row; it is divided by the number of rows that count if
/// `mean`.
void cross_entropy_grad(const LossRows& rows, const Tensor& grad, bool mean,
                        const Tensor& grad_logits);

/// The mask's key is that of its site: the kernel mixes the step into it.
void dropout(const Tensor& x, const StepState& state, const kernels::DropoutMask& mask,
             const Tensor& y);

// ---- ops_matmul.cpp

/// out = a b (+ bias, then relu if asked), `out` contiguous, all of one rank >= 2 and of one dtype;
/// batch dimensions are expanded. Of the last two dimensions of a and b one has stride 1 and the
/// other at least its size. A bias [n] or relu is for two dimensions.
void matmul(const char* op, const Tensor& out, const Tensor& a, const Tensor& b,
            const Tensor& bias = {}, bool relu = false);

// ---- ops_conv.cpp: outputs and gradients of inputs are channels-last

/// Whether own kernels are faster than patches and products of matrices; `direct` below says which.
bool conv2d_is_direct(const kernels::ConvGeometry& g);
/// x in any layout; bias may be undefined.
void conv2d(const kernels::ConvGeometry& g, bool direct, const Tensor& x, const Tensor& weight,
            const Tensor& bias, bool relu, const Tensor& y);
/// Each gradient if it is defined; those of weight and bias are contiguous. `grad` in any layout,
/// the mask of a fused relu taken.
void conv2d_backward(const kernels::ConvGeometry& g, bool direct, const Tensor& grad,
                     const Tensor& x, const Tensor& weight, const Tensor& dx,
                     const Tensor& weight_grad, const Tensor& bias_grad);

// ---- ops_pool.cpp: all tensors channels-last if `last`, else row-major

void max_pool2d(const kernels::PoolGeometry& g, bool last, const Tensor& x, const Tensor& y,
                const Tensor& index);
void max_pool2d_backward(const kernels::PoolGeometry& g, bool last, const Tensor& grad,
                         const Tensor& index, const Tensor& dx);
void avg_pool2d(const kernels::PoolGeometry& g, bool last, const Tensor& x, const Tensor& y);
void avg_pool2d_backward(const kernels::PoolGeometry& g, bool last, const Tensor& grad,
                         const Tensor& dx);

// ---- ops_batch_norm.cpp: x, y, grad and dx are channels-last (or [N, C]) if `last`, else
// row-major

/// Statistics of the batch to mean and invstd; moves the running ones where defined.
void batch_norm_training(const Tensor& x, bool last, const Tensor& weight, const Tensor& bias,
                         const Tensor& running_mean, const Tensor& running_var, double momentum,
                         double eps, bool relu, const Tensor& y, const Tensor& mean,
                         const Tensor& invstd);
void batch_norm_inference(const Tensor& x, bool last, const Tensor& weight, const Tensor& bias,
                          const Tensor& running_mean, const Tensor& running_var, double eps,
                          bool relu, const Tensor& y, const Tensor& mean, const Tensor& invstd);
/// Each gradient if it is defined.
void batch_norm_backward(const Tensor& grad, const Tensor& x, bool last, const Tensor& weight,
                         const Tensor& bias, const Tensor& mean, const Tensor& invstd,
                         bool training, bool relu, const Tensor& dx, const Tensor& weight_grad,
                         const Tensor& bias_grad);

}  // namespace sg::cuda
