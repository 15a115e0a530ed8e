// conv.cpp's way to a GPU.
#pragma once

#include "core/conv.h"
#include "core/kernels/conv.h"

namespace sg::ops {

/// Whether a GPU's kernels serve tensors of this device: a meta tensor has the layouts of the
/// rank's.
bool is_on_gpu(Device device);
/// conv2d and conv2d_backward after their checks, on cuda and for meta.
Tensor conv2d_on_gpu(const kernels::ConvGeometry& g, const Tensor& x, const Tensor& weight,
                     const Tensor& bias, bool relu, ConvAlgorithm asked);
Tensor conv2d_backward_on_gpu(const kernels::ConvGeometry& g, const Tensor& grad,
                              const Tensor& output, const Tensor& x, const Tensor& weight,
                              bool relu, const Conv2dGrads& wanted, ConvAlgorithm asked);

}  // namespace sg::ops
