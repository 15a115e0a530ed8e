// What the files of few-channel convolutions share within one instruction set.
#pragma once

#include "core/kernels/conv_pixels.h"

namespace sg::kernels::SG_ISA {

inline constexpr int kConvMostVectors = 6;  // of a patch's row

void conv_sparse_weight(const ConvSparseWeight&);
void conv_sparse_input(const ConvSparseInput&);
void conv_interleave(const ConvInterleave&, const float* planes, float* pixels);
void conv_separate(const ConvInterleave&, const float* pixels, float* planes);
std::int64_t conv_sparse_gather(const float*, const std::uint8_t*, std::int64_t,
                                const std::int32_t*, const std::int32_t*, std::int32_t*, float*,
                                double*);

}  // namespace sg::kernels::SG_ISA
