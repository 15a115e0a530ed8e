// Image ops on [N, C, H, W] tensors, without gradient: convolution, pooling, batch normalisation,
// forward and backward. Both memory layouts (row-major, channels-last strides) are taken; which one
// an op answers in is said at each.
#pragma once

#include <array>
#include <cstdint>

#include "core/tensor.h"

namespace sg {

struct Conv2dOptions {
  std::array<std::int64_t, 2> stride{1, 1};
  std::array<std::int64_t, 2> padding{0, 0};
  std::array<std::int64_t, 2> dilation{1, 1};
  std::int64_t groups = 1;
  bool relu = false;  ///< fused: relu(conv2d(...))
};

struct Pool2dOptions {
  std::array<std::int64_t, 2> kernel{2, 2};
  std::array<std::int64_t, 2> stride{0, 0};  ///< 0: the kernel's size
  std::array<std::int64_t, 2> padding{0, 0};
};

namespace ops {

/// How a convolution is computed. `automatic` is chosen by shape, dtype and build
/// (conv2d_algorithm); a test or a measurement may ask for any that supports the shape, and gets an
/// error otherwise.
enum class ConvAlgorithm {
  automatic,
  reference,  ///< im2col and a plain matrix product: every shape and floating dtype; row-major
  onednn,     ///< f32, where the library was built with oneDNN; channels-last
  direct,     ///< f32, own kernels whose lanes are output channels; channels-last
  pixels,     ///< f32, column stride 1: forward with pixels as lanes, for few output channels;
              ///< row-major
  winograd,   ///< f32, 3x3 kernels of stride 1, channels in multiples of 16: 16 products where
              ///< others take 36
};
const char* name_of(ConvAlgorithm algorithm);

/// What `automatic` stands for. Shapes, dtype and build decide, so that every rank and every run
/// decide alike.
ConvAlgorithm conv2d_algorithm(const Shape& x, const Shape& weight, DType dtype,
                               const Conv2dOptions& options);

/// The shape of conv2d's output; errors name every shape that does not fit.
Shape conv2d_shape(const Shape& x, const Shape& weight, const Conv2dOptions& options);
/// x [N, C, H, W], weight [O, C / groups, kh, kw], bias [O] or undefined -> [N, O, H', W']; relu if
/// asked. On cuda the result is channels-last, and the algorithms are `reference` (patches and a
/// product of matrices by the GPU's library), `direct` (own kernels) and `automatic`, by the sizes.
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
              const Conv2dOptions& options, ConvAlgorithm algorithm = ConvAlgorithm::automatic);

/// Which gradients conv2d_backward computes, and where to. Defined tensors are overwritten, never
/// added to, and are contiguous.
struct Conv2dGrads {
  bool x = false;
  Tensor weight, bias;
};
/// The input's gradient (undefined unless wanted), given the output's. `output` is needed if relu
/// was fused, `weight` for the input's gradient, `x` for the weight's; others may be undefined.
Tensor conv2d_backward(const Tensor& grad, const Tensor& output, const Tensor& x,
                       const Tensor& weight, const Shape& x_shape, const Shape& weight_shape,
                       const Conv2dOptions& options, const Conv2dGrads& wanted,
                       ConvAlgorithm algorithm = ConvAlgorithm::automatic);

/// Whether conv2d, relu and this pooling have a fused kernel: on the CPU, f32, own kernels, 2x2
/// windows with stride 2.
bool conv2d_relu_max_pool2d_is_fused(const Shape& x, const Shape& weight, DType dtype,
                                     const Conv2dOptions& conv, const Pool2dOptions& pool,
                                     Device device = kCpu);
struct MaxPool;
/// In the layout of x. `index` is as max_pool2d's, but 4 where the maximum is not above 0.
MaxPool conv2d_relu_max_pool2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
                               const Conv2dOptions& conv, const Pool2dOptions& pool);
/// As conv2d_backward, given the gradient of the pooled output.
Tensor conv2d_relu_max_pool2d_backward(const Tensor& grad, const Tensor& index, const Tensor& x,
                                       const Tensor& weight, const Shape& x_shape,
                                       const Shape& weight_shape, const Conv2dOptions& conv,
                                       const Pool2dOptions& pool, const Conv2dGrads& wanted);

/// The shape of a pooling's output; `op` begins its errors.
Shape pool2d_shape(const char* op, const Shape& x, const Pool2dOptions& options);

/// `index` is the position of the maximum in its window (row-major; u8, or i32 for windows beyond
/// 256 elements), in the layout of `output`.
struct MaxPool {
  Tensor output, index;
};
MaxPool max_pool2d(const Tensor& x, const Pool2dOptions& options);
Tensor max_pool2d_backward(const Tensor& grad, const Tensor& index, const Shape& x_shape,
                           const Pool2dOptions& options);
/// Layout of x. Padding counts in the divisor.
Tensor avg_pool2d(const Tensor& x, const Pool2dOptions& options);
Tensor avg_pool2d_backward(const Tensor& grad, const Shape& x_shape, const Pool2dOptions& options);
/// [N, C, H, W] -> [N, C, 1, 1].
Tensor global_avg_pool2d(const Tensor& x);
/// `channels_last`: the layout of the gradient.
Tensor global_avg_pool2d_backward(const Tensor& grad, const Shape& x_shape, bool channels_last);

/// What batch_norm's backward needs besides x and weight: [C], f64 for f64 values, else f32.
struct BatchNorm {
  Tensor output, mean, invstd;
};
/// Normalises with the batch's statistics and moves the running ones (where defined and `update`).
BatchNorm batch_norm_training(const Tensor& x, const Tensor& weight, const Tensor& bias,
                              const Tensor& running_mean, const Tensor& running_var,
                              double momentum, double eps, bool relu, bool update);
/// Normalises with given statistics.
BatchNorm batch_norm_inference(const Tensor& x, const Tensor& weight, const Tensor& bias,
                               const Tensor& running_mean, const Tensor& running_var, double eps,
                               bool relu);
/// weight_grad and bias_grad ([C], may be undefined) are overwritten. `relu`: the mask is computed
/// again from x, with the arithmetic of the forward. `training`: the statistics depend on x.
Tensor batch_norm_backward(const Tensor& grad, const Tensor& x, const Tensor& weight,
                           const Tensor& bias, const Tensor& mean, const Tensor& invstd,
                           bool training, bool relu, bool wants_x, const Tensor& weight_grad,
                           const Tensor& bias_grad);

}  // namespace ops
}  // namespace sg
