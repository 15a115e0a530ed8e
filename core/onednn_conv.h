// oneDNN's f32 convolutions, behind one interface for 2.x (operation descriptors) and 3.x.
// Activations are channels-last; weights are row-major [O, C / groups, kh, kw] outside and
// reordered to what the primitive likes at every call (0.4 us; a fixed plain format runs 2 to 100
// times slower).
#pragma once

#include "core/kernels/conv.h"

namespace sg::onednn {

/// Primitives are kept a thread, by geometry and thread count: making one takes 95 us. All pointers
/// are to dense f32; x, y, dx and dy are [N, H, W, C]. The bits of the results depend on geometry
/// and thread count alone.
void conv_forward(const kernels::ConvGeometry& g, const float* x, const float* weight,
                  const float* bias, float* y, bool relu);
void conv_backward_input(const kernels::ConvGeometry& g, const float* dy, const float* weight,
                         float* dx);
/// db may be null.
void conv_backward_weight(const kernels::ConvGeometry& g, const float* dy, const float* x,
                          float* dw, float* db);

}  // namespace sg::onednn
