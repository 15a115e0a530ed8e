// A GPU for machines that have none: the part of CUDA's runtime that shardgrad uses, on the CPU.
// Memory is memory, and kernels are C++ (core/cuda/launch.h) that runs one thread's work after
// another's. Devices are there only where the variable SHARDGRAD_FAKE_CUDA is set:
//
//   1         work runs as it is queued: quick, for indices, dtypes and bookkeeping
//   threads   a stream is a thread that runs what was queued, an event a flag between streams: a
//             missing wait between two streams is then a race, which ThreadSanitizer and, with
//             SHARDGRAD_FAKE_CUDA_DELAY=N (microseconds, at random before each piece of work), a
//             changed bit show
//
// It proves nothing of speed, of what nvcc makes of a kernel, or of what needs warps and blocks.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

namespace sg::cuda::fake {

/// Queues work on a stream. Captured instead while the stream is being captured.
void enqueue(cudaStream_t stream, std::function<void()> work);

}  // namespace sg::cuda::fake
