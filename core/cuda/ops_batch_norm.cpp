// Batch normalisation: vectors of a value for each channel in the dtypes that kernels take.
#include "core/cuda/context.h"
#include "core/cuda/kernels_image.h"
#include "core/cuda/ops.h"

namespace sg::cuda {
namespace {

BatchNormLayout layout_of(const Tensor& x, bool last) {
  return {x.size(0), x.size(1), x.dim_count() == 4 ? x.size(2) * x.size(3) : 1, last};
}

Tensor scratch(std::int64_t count, DType dtype, Device device) {
  const Scoped kind(current_rank().kind, Kind::buffers);
  return Tensor::empty({count}, dtype, device);
}

// A weight or bias as statistics are: contiguous, of sums_dtype. They may be of another dtype, or a
// view.
Tensor as_factor(const Tensor& t, DType dtype) {
  const Scoped kind(current_rank().kind, Kind::buffers);
  return t.defined() ? t.to(sums_dtype(dtype)).contiguous() : t;
}

void* data_or_null(const Tensor& t) { return t.defined() ? t.raw_data() : nullptr; }

ChannelVector vector_of(const Tensor& t) {
  return t.defined() ? ChannelVector{t.raw_data(), t.dtype(), t.strides()[0]} : ChannelVector{};
}

void normalize(const Tensor& x, const BatchNormLayout& l, const Tensor& weight, const Tensor& bias,
               bool relu, const Tensor& y, const Tensor& mean, const Tensor& invstd) {
  const Tensor w = as_factor(weight, x.dtype()), b = as_factor(bias, x.dtype());
  batch_norm_normalize(on("batch_norm", x.device()), x.dtype(), l, x.raw_data(),
                       {mean.raw_data(), invstd.raw_data(), data_or_null(w), data_or_null(b), relu},
                       y.raw_data());
}

}  // namespace

void batch_norm_training(const Tensor& x, bool last, const Tensor& weight, const Tensor& bias,
                         const Tensor& running_mean, const Tensor& running_var, double momentum,
                         double eps, bool relu, const Tensor& y, const Tensor& mean,
                         const Tensor& invstd) {
  const BatchNormLayout l = layout_of(x, last);
  if (l.channels == 0) return;
  const Tensor partial = scratch(2 * batch_norm_parts(l).size(), DType::f64, x.device());
  batch_norm_statistics(on("batch_norm", x.device()), x.dtype(), l, x.raw_data(),
                        static_cast<double*>(partial.raw_data()), eps, mean.raw_data(),
                        invstd.raw_data(), momentum, vector_of(running_mean),
                        vector_of(running_var));
  for (const Tensor* running : {&running_mean, &running_var})
    if (running->defined()) running->storage()->bump_version();
  normalize(x, l, weight, bias, relu, y, mean, invstd);
}

void batch_norm_inference(const Tensor& x, bool last, const Tensor& weight, const Tensor& bias,
                          const Tensor& running_mean, const Tensor& running_var, double eps,
                          bool relu, const Tensor& y, const Tensor& mean, const Tensor& invstd) {
  const BatchNormLayout l = layout_of(x, last);
  batch_norm_given(on("batch_norm", x.device()), x.dtype(), l.channels, eps,
                   vector_of(running_mean), vector_of(running_var), mean.raw_data(),
                   invstd.raw_data());
  if (x.numel() > 0) normalize(x, l, weight, bias, relu, y, mean, invstd);
}

void batch_norm_backward(const Tensor& grad, const Tensor& x, bool last, const Tensor& weight,
                         const Tensor& bias, const Tensor& mean, const Tensor& invstd,
                         bool training, bool relu, const Tensor& dx, const Tensor& weight_grad,
                         const Tensor& bias_grad) {
  const BatchNormLayout l = layout_of(x, last);
  if (x.numel() == 0) {
    if (weight_grad.defined()) weight_grad.fill(0);
    if (bias_grad.defined()) bias_grad.fill(0);
    return;
  }
  const Launch launch = on("batch_norm", x.device());
  const Tensor w = as_factor(weight, x.dtype()), b = as_factor(bias, x.dtype());
  const BatchNormFactors factors{mean.raw_data(), invstd.raw_data(), data_or_null(w),
                                 data_or_null(b), relu};
  Tensor slopes;
  if (training || weight_grad.defined() || bias_grad.defined()) {
    slopes = scratch(2 * l.channels, sums_dtype(x.dtype()), x.device());
    const Tensor partial = scratch(2 * batch_norm_parts(l).size(), DType::f64, x.device());
    batch_norm_sums(launch, x.dtype(), l, x.raw_data(), grad.raw_data(), factors,
                    static_cast<double*>(partial.raw_data()), vector_of(weight_grad),
                    vector_of(bias_grad), slopes.raw_data());
  }
  if (dx.defined())
    batch_norm_input_grad(launch, x.dtype(), l, x.raw_data(), grad.raw_data(), factors,
                          training ? slopes.raw_data() : nullptr, dx.raw_data());
}

}  // namespace sg::cuda
