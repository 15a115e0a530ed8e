// Differentiable image ops on [N, C, H, W]. Either memory layout is taken (row-major or
// channels-last strides); an op answers in the layout that serves it best, so a chain of layers
// settles into one.
#pragma once

#include "autograd/var.h"
#include "core/conv.h"  // Conv2dOptions, Pool2dOptions

namespace sg {

/// x [N, C, H, W], weight [O, C / groups, kh, kw], bias [O] or undefined -> [N, O, H', W'].
Var conv2d(const Var& x, const Var& weight, const Var& bias = {},
           const Conv2dOptions& options = {});
/// relu and max pooling after a convolution, in one op where the shapes have a fused kernel (the
/// full-size activation is then never written), as separate ops otherwise; the same function either
/// way.
Var conv2d_relu_max_pool2d(const Var& x, const Var& weight, const Var& bias,
                           const Conv2dOptions& conv, const Pool2dOptions& pool);
/// The first maximum of a window in row-major order gets its gradient, as in PyTorch.
Var max_pool2d(const Var& x, const Pool2dOptions& options);
/// Padding counts in the divisor (PyTorch's count_include_pad = true).
Var avg_pool2d(const Var& x, const Pool2dOptions& options);
/// Mean over H and W: [N, C, H, W] -> [N, C, 1, 1].
Var global_avg_pool2d(const Var& x);
/// Batch normalisation (Ioffe and Szegedy, 2015, algorithm 1) over N, H, W of [N, C, H, W] (or N of
/// [N, C]). In training the batch's biased variance normalises, and running_mean/running_var ([C],
/// changed in place, either may be undefined) move by `momentum` with the unbiased variance; not on
/// `meta` and not while recomputing. `relu` is fused.
Var batch_norm(const Var& x, const Var& weight, const Var& bias, const Tensor& running_mean,
               const Tensor& running_var, bool training, double momentum = 0.1, double eps = 1e-5,
               bool relu = false);

}  // namespace sg
