// What the files of Winograd's convolution share within one instruction set.
#pragma once

#include "core/kernels/conv_winograd.h"

namespace sg::kernels::SG_ISA {

void winograd_products(const WinogradProducts&);
void winograd_sums(const WinogradSums&);
void winograd_filters(const WinogradFilters&, const float* from, std::int64_t first,
                      std::int64_t last, float* to);
void winograd_filters_grad(const WinogradFilters&, const float* sums, std::int64_t first,
                           std::int64_t last, float* dw);

}  // namespace sg::kernels::SG_ISA
