// The block walk: how elementwise loops over contiguous values serve every layout. The output's
// elements are visited in blocks of at most kBlock; each operand hands the loop a pointer to its
// values in that order: the tensor's own memory where it is contiguous there, else a buffer in the
// first-level cache into which the block is gathered (strides, broadcasting) and cast (16 bits to
// float). So an op needs one loop, and its cost is that of memory.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>

#include "core/tensor.h"

namespace sg::kernels {

inline constexpr std::int64_t kBlock =
    1024;  // elements; four buffers of doubles are two thirds of 48 KiB
inline constexpr int kMaxInputs = 3;

/// A loop over n contiguous values: inputs[i] in the compute type of input i, output likewise.
class BlockLoop {
 public:
  template <class F>
  explicit BlockLoop(const F& f)
      : context_(&f),
        call_([](const void* context, const void* const* inputs, void* output, std::int64_t n) {
          (*static_cast<const F*>(context))(inputs, output, n);
        }) {}
  void operator()(const void* const* inputs, void* output, std::int64_t n) const {
    call_(context_, inputs, output, n);
  }

 private:
  const void* context_;
  void (*call_)(const void*, const void* const*, void*, std::int64_t);
};

/// Runs `loop` over all elements of `output` in parallel. Inputs broadcast to the output's shape;
/// an undefined one gives a null pointer. `cost` is the time of an element in units of a copy, and
/// decides from which size on threads pay.
void for_blocks(const Tensor& output, std::initializer_list<const Tensor*> inputs,
                const BlockLoop& loop, int cost = 1);

template <class F>
void for_blocks(const Tensor& output, std::initializer_list<const Tensor*> inputs, const F& f,
                int cost = 1) {
  for_blocks(output, inputs, BlockLoop(f), cost);
}

/// Contiguous values of a 16-bit dtype as float, and back; a plain copy for other dtypes.
void to_compute(DType dtype, const void* from, void* to, std::int64_t n);
void from_compute(DType dtype, const void* from, void* to, std::int64_t n);
/// Bytes of the compute type.
std::size_t compute_size(DType dtype);

}  // namespace sg::kernels
