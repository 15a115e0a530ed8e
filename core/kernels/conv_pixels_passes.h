// Passes made of the loops of conv_pixels.h. f32, one group.
#pragma once

#include "core/kernels/conv_direct_passes.h"

namespace sg::kernels {

/// Column stride 1. It pays for few output channels, which would leave lanes idle in the direct
/// kernels.
bool conv_pixels_supports(const ConvGeometry& g);
/// As conv_direct_forward; y is row-major.
void conv_pixels_forward(const ConvGeometry& g, ImageView<const float> x, const float* weight,
                         const float* bias, bool relu, ImageView<float> y,
                         std::uint8_t* index = nullptr);

/// No dilation of columns, rows of a patch (kw * c) of a few vectors.
bool conv_sparse_supports(const ConvGeometry& g);
/// Gradients of convolution, relu and 2x2 max pooling, given that of the pooled output. dy and
/// index are row-major, without gaps within a channel.
void conv_sparse_backward(const ConvGeometry& g, ImageView<const float> dy,
                          const std::uint8_t* index, ImageView<const float> x, const float* weight,
                          const ConvGradients& grads);

}  // namespace sg::kernels
