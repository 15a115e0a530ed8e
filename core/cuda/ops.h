// The GPU's side of core/ops.h and core/conv.h: what an op calls, after its checks and with its
// result allocated, where its tensors are on cuda. Work is queued on the rank's compute stream.
#pragma once

#include <initializer_list>

#include "core/cuda/elementwise.h"
#include "core/tensor.h"

namespace sg::cuda {

/// out = op(inputs...), broadcasting; `name` is the op's, for errors.
void elementwise(const char* name, const Elementwise& op, const Tensor& out,
                 std::initializer_list<const Tensor*> inputs);

/// Values and casts, between two tensors of equal shape of which one at least is on cuda. A copy to
/// the CPU waits for the values; one from the CPU has read them when it returns.
void copy(const Tensor& source, const Tensor& destination);
void fill(const Tensor& destination, double value);

// ---- ops_matmul.cpp

/// out = a b (+ bias, then relu if asked), `out` contiguous, all of one rank >= 2 and of one dtype;
/// batch dimensions are expanded. Of the last two dimensions of a and b one has stride 1 and the
/// other at least its size. A bias [n] or relu is for two dimensions.
void matmul(const char* op, const Tensor& out, const Tensor& a, const Tensor& b,
            const Tensor& bias = {}, bool relu = false);

}  // namespace sg::cuda
