// A GPU for machines that have none: the part of CUDA's runtime that shardgrad uses, on the CPU. A
// stream is a thread that runs what was queued, in order; an event is a flag between streams;
// memory is memory. Kernels are C++ (core/cuda/launch.h) and run one thread's work after another's.
//
// It proves indices, dtypes, bookkeeping and the order of streams (under ThreadSanitizer, a missing
// wait between two streams is a race). It proves nothing of speed, of what nvcc makes of a kernel,
// or of what needs warps and blocks. Devices are there only where SHARDGRAD_FAKE_CUDA=1. SHARDGRAD_FAKE_CUDA_DELAY=N (microseconds) delays every stream
// at random before each piece of work.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

namespace sg::cuda::fake {

/// Queues work on a stream. Captured instead while the stream is being captured.
void enqueue(cudaStream_t stream, std::function<void()> work);

}  // namespace sg::cuda::fake
