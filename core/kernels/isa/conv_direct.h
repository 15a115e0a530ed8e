// What the files of the direct convolution share within one instruction set.
#pragma once

#include "core/kernels/conv_direct.h"
#include "core/kernels/simd.h"

namespace sg::kernels::SG_ISA {

void conv_direct_pack_image(const ConvPackImage&);
void conv_direct_pack_weights(const ConvPackWeights&);
void conv_direct_weight(const ConvWeight&);

// Accumulators of a tile leave registers for the operands. A run times one or two vectors makes a tile.
#if defined(__AVX512F__)
inline constexpr int kConvAccumulators = 28;
inline constexpr int kConvLongestRun[2] = {16, 14};
#else
inline constexpr int kConvAccumulators = 12;
inline constexpr int kConvLongestRun[2] = {12, 6};
#endif

}  // namespace sg::kernels::SG_ISA
