// From tensors to the strides that kernels walk by. For C++ files: tensors know formatting.
#pragma once

#include <algorithm>

#include "core/cuda/map.h"
#include "core/tensor.h"

namespace sg::cuda {

/// The dimensions of `first` by descending stride; neighbours that compose in every operand are
/// merged. Operands broadcast to first's shape; an undefined one has strides 0.
template <int kOperands>
Walk<kOperands> make_walk(const Tensor& first, const Tensor* const* others) {
  static_assert(kMaxDims == Dims::kCapacity);
  const Shape& shape = first.shape();
  Tensor expanded[kOperands];
  expanded[0] = first;
  for (int k = 1; k < kOperands; ++k)
    if (others[k - 1] != nullptr && others[k - 1]->defined())
      expanded[k] = others[k - 1]->expand(shape);
  int order[kMaxDims], used = 0;
  for (int i = 0; i < shape.size(); ++i)
    if (shape[i] != 1) order[used++] = i;
  std::stable_sort(order, order + used,
                   [&](int a, int b) { return first.strides()[a] > first.strides()[b]; });
  Walk<kOperands> walk;
  for (int at = 0; at < used; ++at) {
    const int i = order[at];
    std::int64_t stride[kOperands];
    for (int k = 0; k < kOperands; ++k)
      stride[k] = expanded[k].defined() ? expanded[k].strides()[i] : 0;
    bool composes = walk.dims > 0;
    for (int k = 0; composes && k < kOperands; ++k)
      composes = walk.stride[k][walk.dims - 1] == stride[k] * shape[i];
    if (composes)
      walk.size[walk.dims - 1] *= shape[i];
    else
      walk.size[walk.dims++] = shape[i];
    for (int k = 0; k < kOperands; ++k) walk.stride[k][walk.dims - 1] = stride[k];
  }
  if (walk.dims == 0) {
    walk.dims = 1;
    walk.size[0] = 1;
  }
  return walk;
}

}  // namespace sg::cuda
