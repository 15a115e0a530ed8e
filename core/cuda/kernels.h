// What the .cu files offer to the rest of core/cuda: plain pointers, sizes and dtypes. Each
// function queues its work on the launch's stream and returns. Arrays are contiguous and row-major
// unless a walk is given; in 16-bit dtypes values are computed in float.
#pragma once

#include <cstdint>

#include "core/cuda/elementwise.h"
#include "core/cuda/launch.h"
#include "core/cuda/map.h"
#include "core/scalar.h"

namespace sg::cuda {

// ---- elementwise.cu

inline constexpr int kMaxInputs = 3;

/// out[i] = op(inputs[i]...). `dtype` is that of the inputs (of where's values); compare writes u8.
/// Inputs that the op does not read may be null. Without a walk all arrays are contiguous; unary
/// and unary_grad take none.
void elementwise(const Launch& on, const Elementwise& op, DType dtype, std::int64_t n,
                 const Walk<kMaxInputs + 1>* walk, const void* const* inputs, void* output);

// ---- copy.cu

/// output[i] = (cast) input[i] over a walk of (output, input).
void copy_strided(const Launch& on, DType to, DType from, std::int64_t n, const Walk<2>& walk,
                  const void* input, void* output);
/// Nothing, for about so long.
void delay(const Launch& on, std::int64_t microseconds);
/// to[i] = words[i]; what `words` points to may change at once.
void store(const Launch& on, void* to, const std::uint32_t* words, std::int64_t n);
/// output[i] = value
void fill_strided(const Launch& on, DType dtype, std::int64_t n, const Walk<1>& walk, double value,
                  void* output);

// ---- fold.cu

inline constexpr int kMaxFold = 256;  // sources that come as arguments, 2 KB of a kernel's 4
/// out[i] = ((sources[0][i] + sources[1][i]) + ...), `count` sources of n values of f32 or f64; out
/// may be any of them. More than kMaxFold sources take 8 bytes each of the device's memory
/// meanwhile.
void fold(const Launch& on, DType dtype, void* out, const void* const* sources, int count,
          std::int64_t n);

}  // namespace sg::cuda
