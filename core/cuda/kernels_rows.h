// Ops over contiguous rows of n values on the GPU (rows.cu, loss.cu). "Wide" is the compute type:
// f32 for 16-bit dtypes.
#pragma once

#include <cstdint>

#include "core/cuda/launch.h"
#include "core/cuda/row_op.h"
#include "core/scalar.h"

namespace sg::cuda {

/// x is the op's argument, or its result for the gradients, which read `grad` besides.
void row_op(const Launch& on, RowOp op, DType dtype, std::int64_t rows, std::int64_t n,
            const void* x, const void* grad, void* out);

/// mean and rstd are wide; weight and bias may be null.
void layer_norm(const Launch& on, DType dtype, std::int64_t rows, std::int64_t n, const void* x,
                const void* weight, const void* bias, double eps, void* y, void* mean, void* rstd);
void layer_norm_grad(const Launch& on, DType dtype, std::int64_t rows, std::int64_t n,
                     const void* x, const void* weight, const void* grad, const void* mean,
                     const void* rstd, void* grad_x);
/// partial [pieces, 2, n]: sums of grad (x - mean) rstd, and of grad, over rows piece, piece +
/// pieces, ...
void layer_norm_grad_affine(const Launch& on, DType dtype, std::int64_t rows, std::int64_t n,
                            const void* x, const void* grad, const void* mean, const void* rstd,
                            std::int64_t pieces, double* partial);

/// Hard targets, or `soft` class probabilities of the logits' dtype.
struct CrossEntropyCall {
  DType dtype;
  std::int64_t rows, n, ignore_index;
  double smoothing;
  const void* logits;           ///< [rows, n]
  const std::int64_t* targets;  ///< [rows], or null
  const void* soft;             ///< [rows, n], or null
  void* stats;                  ///< wide [rows, 2]: log-sum-exp in two parts
  std::int64_t* found;          ///< Context's
};

/// Wide loss of each row, 0 where the target is ignored, and the stats.
void cross_entropy(const Launch& on, const CrossEntropyCall& c, void* loss);
/// grad_logits[r] = scale[r * scale_stride] dloss[r]/dlogits
void cross_entropy_grad(const Launch& on, const CrossEntropyCall& c, const void* scale,
                        std::int64_t scale_stride, void* grad_logits);

/// Pairs of doubles that the two below keep the results of pieces in.
std::int64_t loss_pieces(std::int64_t rows);
/// out (a scalar) = sum of the rows' wide losses, divided by the number of rows that count if
/// `mean`.
void loss_total(const Launch& on, const CrossEntropyCall& c, const void* loss, bool mean,
                double* scratch, DType out_dtype, void* out);
/// scale (a wide scalar) = the wide scalar grad / the number of rows that count.
void loss_scale(const Launch& on, const CrossEntropyCall& c, const void* grad, double* scratch,
                void* scale);

}  // namespace sg::cuda
