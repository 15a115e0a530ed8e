// The GPU's side of core/ops.h and core/conv.h: what an op calls, after its checks and with its
// result allocated, where its tensors are on cuda. Work is queued on the rank's compute stream.
#pragma once

#include <initializer_list>

#include "core/cuda/elementwise.h"
#include "core/kernels/conv.h"
#include "core/kernels/pool_geometry.h"
#include "core/tensor.h"

namespace sg::cuda {

/// out = op(inputs...), broadcasting; `name` is the op's, for errors.
void elementwise(const char* name, const Elementwise& op, const Tensor& out,
                 std::initializer_list<const Tensor*> inputs);

/// Values and casts, between two tensors of equal shape of which one at least is on cuda. A copy to
/// the CPU waits for the values; one from the CPU has read them when it returns.
void copy(const Tensor& source, const Tensor& destination);
void fill(const Tensor& destination, double value);

// ---- ops_matmul.cpp

/// out = a b (+ bias, then relu if asked), `out` contiguous, all of one rank >= 2 and of one dtype;
/// batch dimensions are expanded. Of the last two dimensions of a and b one has stride 1 and the
/// other at least its size. A bias [n] or relu is for two dimensions.
void matmul(const char* op, const Tensor& out, const Tensor& a, const Tensor& b,
            const Tensor& bias = {}, bool relu = false);

// ---- ops_conv.cpp: outputs and gradients of inputs are channels-last

/// x in any layout; bias may be undefined.
void conv2d(const kernels::ConvGeometry& g, const Tensor& x, const Tensor& weight,
            const Tensor& bias, bool relu, const Tensor& y);
/// Each gradient if it is defined; those of weight and bias are contiguous. `grad` in any layout,
/// the mask of a fused relu taken.
void conv2d_backward(const kernels::ConvGeometry& g, const Tensor& grad, const Tensor& x,
                     const Tensor& weight, const Tensor& dx, const Tensor& weight_grad,
                     const Tensor& bias_grad);

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
