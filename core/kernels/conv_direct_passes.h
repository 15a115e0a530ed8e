// The passes of a convolution made of the loops of conv_direct.h: packing, threads and scratch.
// f32; any strides of activations; weights and their gradient row-major [o, c / groups, kh, kw].
#pragma once

#include "core/kernels/conv.h"

namespace sg::kernels {

/// Column strides beyond 2 are not supported (nor needed by a kernel of 1x1, which skips pixels
/// instead).
bool conv_direct_supports(const ConvGeometry& g);

/// y = conv(x) + bias, relu of it if asked. With `index` (strides of y), 2x2 max pooling follows
/// the relu: y is [n, o, oh / 2, ow / 2].
void conv_direct_forward(const ConvGeometry& g, ImageView<const float> x, const float* weight,
                         const float* bias, bool relu, ImageView<float> y,
                         std::uint8_t* index = nullptr);

/// Gradients, each if its pointer is given; all are overwritten. `mask` (strides of dy, or null) is
/// the output of a fused relu.
struct ConvGradients {
  ImageView<float> dx;
  float* dw = nullptr;
  float* db = nullptr;
};
void conv_direct_backward(const ConvGeometry& g, ImageView<const float> dy, const float* mask,
                          ImageView<const float> x, const float* weight,
                          const ConvGradients& grads);

}  // namespace sg::kernels
