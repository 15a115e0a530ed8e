// The passes of a 3x3 convolution by Winograd's algorithm. f32, channels-last activations, channels
// in multiples of 16, one group; otherwise as conv_direct_passes.h.
#pragma once

#include "core/kernels/conv_direct_passes.h"

namespace sg::kernels {

bool conv_winograd_supports(const ConvGeometry& g);

/// With `index`, 2x2 max pooling follows the relu.
void conv_winograd_forward(const ConvGeometry& g, ImageView<const float> x, const float* weight,
                           const float* bias, bool relu, ImageView<float> y,
                           std::uint8_t* index = nullptr);

/// With `index`, dy is the gradient of the pooled output. `mask` and `index` have the strides of
/// dy.
void conv_winograd_backward(const ConvGeometry& g, ImageView<const float> dy, const float* mask,
                            const std::uint8_t* index, ImageView<const float> x,
                            const float* weight, const ConvGradients& grads);

}  // namespace sg::kernels
