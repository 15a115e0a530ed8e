// What a rank has on its GPU: streams, the pool that its memory comes from, a place for errors that
// kernels find. Host code; it includes CUDA's header, so only core/cuda and what is built with CUDA
// may include it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "core/cuda/lanes.h"
#include "core/cuda/launch.h"
#include "core/rank.h"

namespace sg::cuda {

/// Throws unless `status` is success: "[relu] cudaMallocAsync on cuda:0, rank 2, after all_gather
/// of unit 1 (...): out of memory".
void check(cudaError_t status, std::string_view op, std::string_view call);

class Blas;  // of blas.cpp

class Context {
 public:
  /// Errors: there is no such device, or no driver (the text says which).
  explicit Context(int device);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  int device() const { return device_; }
  /// Copies from pageable memory may read it after cudaMemcpyAsync has returned (the GPU reads main
  /// memory by itself).
  bool reads_host_memory() const { return reads_host_memory_; }
  /// Makes its device the current one of the calling thread.
  void use() const;
  int processors() const { return processors_; }
  /// Ops run here, in program order.
  cudaStream_t compute() const { return compute_; }
  /// Collectives and prefetched copies, beside `compute`.
  cudaStream_t communication() const { return communication_; }

  /// Stream-ordered: the bytes are the caller's for work on `compute` from now on, and until the
  /// work queued before free().
  void* allocate(std::size_t bytes);
  void free(void* data) noexcept;

  // For Capture, graph.h.
  void begin_capture();
  cudaGraph_t end_capture();
  void drop_capture() noexcept;
  /// Throws while a graph is captured: what `op` is about to do would not be replayed.
  void check_not_capturing(std::string_view op) const;

  /// Waits for everything queued, then throws what a kernel has found wrong (an index outside its
  /// range, say), or what the rank's collectives were given up for.
  void synchronize(std::string_view op);

  /// Words that kernels write what they find wrong to: {code, value, place, limit}; 0 is fine. On
  /// the device; one error stays.
  std::int64_t* found() const { return found_; }

  /// See lanes.h; null where there are none.
  std::shared_ptr<const Collectives> collectives() const { return collectives_.lock(); }
  void set_collectives(std::weak_ptr<const Collectives> collectives) {
    collectives_ = std::move(collectives);
  }

  /// What matrix products need, made by the first of them.
  std::shared_ptr<Blas>& blas() { return blas_; }

 private:
  int device_;
  int processors_ = 1;
  bool reads_host_memory_ = false;
  cudaStream_t compute_ = nullptr, communication_ = nullptr;
  std::int64_t* found_ = nullptr;
  std::shared_ptr<Blas> blas_;
  std::weak_ptr<const Collectives> collectives_;
  bool capturing_ = false;
  std::set<void*> captured_;        // allocated since the capture began
  std::set<void*> lost_;            // of those, what is still held although its graph is gone
  std::vector<void*> freed_later_;  // memory from before that was freed since
};

/// The current rank's, on the device of its tensors; made at first use. Makes it the thread's
/// current device.
Context& context(Device device);
/// For the launch of a kernel of `op` on the compute stream.
Launch on(const char* op, Device device);
/// Context::found() of the current rank's.
const std::int64_t* found(Device device);

}  // namespace sg::cuda
