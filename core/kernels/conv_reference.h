// Convolution for every shape and for float and double: im2col and a plain matrix product. Tensors
// are row-major. The oracle that faster paths are tested against, in double.
#pragma once

#include "core/kernels/conv.h"

namespace sg::kernels {

template <class T>
void conv_reference_forward(const ConvGeometry& g, const T* x, const T* weight, const T* bias, T* y,
                            bool relu);
template <class T>
void conv_reference_backward_input(const ConvGeometry& g, const T* dy, const T* weight, T* dx);
/// dw and db may be null; both are overwritten.
template <class T>
void conv_reference_backward_weight(const ConvGeometry& g, const T* dy, const T* x, T* dw, T* db);

}  // namespace sg::kernels
