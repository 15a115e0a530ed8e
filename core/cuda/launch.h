// How kernels are written and started. A kernel is a functor of plain values and pointers:
//
//   for_each(on, n, f)        f(i) for every i < n
//   for_rows(on, rows, n, f)  f(team, r) for every r < rows, a team of threads to each row of
//                             length n; what a team does is in core/kernels/rows.h
//
// nvcc compiles both into kernels of the GPU. The same files also compile as C++ against
// tests/fake_cuda, where a stream is a thread: what is wrong in a kernel's indices, in its use of
// memory or in the order of streams then shows on a machine without a GPU, under sanitizers, too.
//
// Included by .cu files: nothing here may include fmt, which nvcc 13 does not compile.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>

#include "core/kernels/host_device.h"

namespace sg::cuda {

/// Where a kernel runs, and for which op (for error texts).
struct Launch {
  const char* op;
  cudaStream_t stream;
  int processors;  ///< multiprocessors of the device
};

/// Throws if the last launch failed.
void check_launch(const Launch& on);
/// Throws unless `status` of `call` is success.
void check_call(const Launch& on, cudaError_t status, const char* call);

inline constexpr int kThreads = 256;   // of a block
inline constexpr int kTinyRow = 16;    // rows up to here are a thread's,
inline constexpr int kShortRow = 512;  // up to here a warp's, longer ones a block's

struct Plus {
  template <class T>
  SG_HD T operator()(T a, T b) const {
    return a + b;
  }
};
struct Larger {  // NaN wins
  template <class T>
  SG_HD T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};

// What every team offers beside each() and first(), from its
//   fold<T>(start, n, f, op)  op over start (of no effect: 0 for a sum) and f(i), i < n
// whose value is the same in all its threads.
template <class Team>
struct TeamFolds {
  template <class T, class F>
  SG_HD T sum(std::int64_t n, F&& f) const {
    return static_cast<const Team*>(this)->template fold<T>(T(0), n, f, Plus{});
  }
  template <class T, class F>
  SG_HD T max(std::int64_t n, F&& f) const {
    return static_cast<const Team*>(this)->template fold<T>(-T(__builtin_huge_val()), n, f,
                                                            Larger{});
  }
};

/// One thread has a whole row.
struct SerialTeam : TeamFolds<SerialTeam> {
  template <class F>
  SG_HD void each(std::int64_t n, F&& f) const {
    for (std::int64_t i = 0; i < n; ++i) f(i);
  }
  template <class T, class F, class Op>
  SG_HD T fold(T start, std::int64_t n, F&& f, const Op& op) const {
    T result = start;
    for (std::int64_t i = 0; i < n; ++i) result = op(result, static_cast<T>(f(i)));
    return result;
  }
  SG_HD bool first() const { return true; }
};

template <class F>
struct SerialRows {
  F f;
  SG_HD void operator()(std::int64_t r) const { f(SerialTeam{}, r); }
};

#if defined(__CUDACC__)

/// The 32 lanes of a warp share a row.
struct WarpTeam : TeamFolds<WarpTeam> {
  int lane;
  __device__ explicit WarpTeam(int lane) : lane(lane) {}
  template <class F>
  __device__ __forceinline__ void each(std::int64_t n, F&& f) const {
    for (std::int64_t i = lane; i < n; i += 32) f(i);
    __syncwarp();
  }
  template <class T, class F, class Op>
  __device__ __forceinline__ T fold(T start, std::int64_t n, F&& f, const Op& op) const {
    T result = start;
    for (std::int64_t i = lane; i < n; i += 32) result = op(result, static_cast<T>(f(i)));
    return across(result, op);
  }
  template <class T, class Op>
  __device__ __forceinline__ static T across(T value, const Op& op) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
      value = op(value, __shfl_xor_sync(0xffffffffu, value, step));
    return value;
  }
  __device__ __forceinline__ bool first() const { return lane == 0; }
};

/// The kThreads threads of a block share a row; `shared` holds a value of each of its warps.
struct BlockTeam : TeamFolds<BlockTeam> {
  double* shared;
  __device__ explicit BlockTeam(double* shared) : shared(shared) {}
  template <class F>
  __device__ __forceinline__ void each(std::int64_t n, F&& f) const {
    for (std::int64_t i = threadIdx.x; i < n; i += kThreads) f(i);
    __syncthreads();
  }
  template <class T, class F, class Op>
  __device__ __forceinline__ T fold(T start, std::int64_t n, F&& f, const Op& op) const {
    static_assert(sizeof(T) <= sizeof(double));
    T result = start;
    for (std::int64_t i = threadIdx.x; i < n; i += kThreads)
      result = op(result, static_cast<T>(f(i)));
    result = WarpTeam::across(result, op);
    // The warps' results are folded in order, the same in every thread.
    T* const slots = reinterpret_cast<T*>(shared);
    __syncthreads();  // the slots of the fold before have been read
    if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = result;
    __syncthreads();
    result = slots[0];
#pragma unroll
    for (int w = 1; w < kThreads / 32; ++w) result = op(result, slots[w]);
    return result;
  }
  __device__ __forceinline__ bool first() const { return threadIdx.x == 0; }
};

template <class F>
__global__ void __launch_bounds__(kThreads) each_kernel(std::int64_t n, const F f) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < n; i += stride) f(i);
}

template <class F>
__global__ void __launch_bounds__(kThreads) warp_rows_kernel(std::int64_t rows, const F f) {
  const WarpTeam team(static_cast<int>(threadIdx.x % 32));
  const std::int64_t stride = std::int64_t{gridDim.x} * (kThreads / 32);
  for (std::int64_t r = std::int64_t{blockIdx.x} * (kThreads / 32) + threadIdx.x / 32; r < rows;
       r += stride)
    f(team, r);
}

template <class F>
__global__ void __launch_bounds__(kThreads) block_rows_kernel(std::int64_t rows, const F f) {
  __shared__ double shared[kThreads / 32];
  const BlockTeam team(shared);
  for (std::int64_t r = blockIdx.x; r < rows; r += gridDim.x) f(team, r);
}

inline unsigned blocks_for(const Launch& on, std::int64_t blocks) {
  // Enough to fill every multiprocessor several times; the loops in the kernels do the rest.
  return static_cast<unsigned>(std::min<std::int64_t>(blocks, std::int64_t{on.processors} * 16));
}

template <class F>
void for_each(const Launch& on, std::int64_t n, const F& f) {
  if (n <= 0) return;
  each_kernel<<<blocks_for(on, (n + kThreads - 1) / kThreads), kThreads, 0, on.stream>>>(n, f);
  check_launch(on);
}

template <class F>
void for_rows(const Launch& on, std::int64_t rows, std::int64_t row_length, const F& f) {
  if (rows <= 0) return;
  if (row_length <= kTinyRow) return for_each(on, rows, SerialRows<F>{f});
  if (row_length <= kShortRow) {
    constexpr int kWarps = kThreads / 32;
    warp_rows_kernel<<<blocks_for(on, (rows + kWarps - 1) / kWarps), kThreads, 0, on.stream>>>(rows,
                                                                                               f);
  } else {
    block_rows_kernel<<<blocks_for(on, rows), kThreads, 0, on.stream>>>(rows, f);
  }
  check_launch(on);
}

#elif defined(SG_FAKE_CUDA)

template <class F>
void for_each(const Launch& on, std::int64_t n, const F& f) {
  if (n <= 0) return;
  fake::enqueue(on.stream, [n, f] {
    for (std::int64_t i = 0; i < n; ++i) f(i);
  });
}

template <class F>
void for_rows(const Launch& on, std::int64_t rows, std::int64_t, const F& f) {
  for_each(on, rows, SerialRows<F>{f});
}

#endif

}  // namespace sg::cuda
