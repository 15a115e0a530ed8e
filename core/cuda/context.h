// What a rank has on its GPU: streams, the pool that its memory comes from, a place for errors that
// kernels find. Host code; it includes CUDA's header, so only core/cuda and what is built with CUDA
// may include it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/cuda/lanes.h"
#include "core/cuda/launch.h"
#include "core/rank.h"

namespace sg::cuda {

/// Throws unless `status` is success: "[relu] cudaMallocAsync on cuda:0, rank 2, after all_gather
/// of unit 1 (...): out of memory".
void check(cudaError_t status, std::string_view op, std::string_view call);
/// For error texts: "cuda:0, rank 2, after all_gather of unit 1 (...)", the last being the rank's
/// last collective, if there was one.
std::string where();

class Blas;  // of blas.cpp

/// A stream of the thread's current device; it goes when what is queued on it is done.
class OwnStream {
 public:
  OwnStream();
  ~OwnStream() { cudaStreamDestroy(stream_); }
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class Context {
 public:
  /// Errors: there is no such device, or no driver (the text says which). Nothing is left of one
  /// that throws.
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
  cudaStream_t compute() const { return streams_->compute.get(); }
  /// Collectives, beside `compute`.
  cudaStream_t communication() const { return streams_->communication.get(); }

  /// What comes from main memory, and what goes there, while ops compute.
  cudaStream_t copies_in() const { return streams_->copies_in.get(); }
  cudaStream_t copies_out() const { return streams_->copies_out.get(); }

  /// Stream-ordered: the bytes are the caller's for work on `compute` from now on, and until the
  /// work queued before free().
  void* allocate(std::size_t bytes);
  void free(void* data) noexcept;

  /// Waits for the compute stream, and gives what its pool holds for later back to the card.
  void trim();

  struct Free {
    Context* context;
    void operator()(void* data) const noexcept { context->free(data); }
  };
  template <class T>
  using Owned = std::unique_ptr<T, Free>;

  // For Capture, graph.h.
  struct DestroyGraph {
    void operator()(cudaGraph_t graph) const noexcept { cudaGraphDestroy(graph); }
  };
  using OwnGraph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, DestroyGraph>;
  struct Captured {
    OwnGraph graph;
    bool allocates = false;  ///< it has tensors of its own
    /// From before, and freed meanwhile: the graph may read it, so it is freed with the graph.
    std::vector<Owned<void>> memory;
  };
  void begin_capture();
  Captured end_capture();
  void drop_capture() noexcept;
  /// Throws while a graph is captured: what `op` is about to do would not be replayed.
  void check_not_capturing(std::string_view op);

  /// Waits for everything queued, then throws what a kernel has found wrong (an index outside its
  /// range, say), or what the rank's collectives were given up for.
  void synchronize(std::string_view op);

  /// check() of a wait. What went wrong may follow from what the rank's collectives were given up
  /// for, and is nothing to go on with after that: this is thrown first, whatever the status.
  void check_done(cudaError_t status, std::string_view op, std::string_view call) const;
  /// Words that kernels write what they find wrong to: {code, value, place, limit}; 0 is fine. On
  /// the device; one error stays until it is read. (kFoundWords of them.)
  std::int64_t* found() const { return found_.get(); }
  /// Nothing was found, for what is queued from now on.
  void clear_found(std::string_view op);

  /// See lanes.h; null where there are none.
  std::shared_ptr<const Collectives> collectives() const { return collectives_.lock(); }
  void set_collectives(std::weak_ptr<const Collectives> collectives) {
    collectives_ = std::move(collectives);
  }

  /// What matrix products need, made by the first of them.
  std::shared_ptr<Blas>& blas() { return blas_; }
  /// Memory that they work in, of the size that is asked for first. Outside of the ledger, as
  /// CUDA's own is: memory_info() names it.
  void* workspace(std::size_t bytes);
  std::size_t workspace_bytes() const { return workspace_bytes_; }
  /// MemoryInfo::before.
  std::int64_t used_before() const { return used_before_; }

 private:
  struct Streams {
    OwnStream compute, communication, copies_in, copies_out;
  };
  int device_;
  int processors_ = 1;
  bool reads_host_memory_ = false;
  std::mutex capture_;  // of the next five: a tensor may die on another thread than its rank's
  bool capturing_ = false;
  bool allocates_ = false;          // the capture, up to now
  std::set<void*> captured_;        // allocated since the capture began
  std::vector<void*> freed_later_;  // memory from before that was freed since
  // Tensors of captures that failed, which somebody still holds. Their graphs, if they came to be,
  // are kept, so that the addresses are not given out again.
  std::set<void*> lost_;
  std::vector<OwnGraph> lost_graphs_;
  std::unique_ptr<Streams> streams_;  // made when the device is known to be there
  std::int64_t used_before_ = 0;
  Owned<std::int64_t> found_;
  Owned<char> workspace_;
  std::size_t workspace_bytes_ = 0;
  std::shared_ptr<Blas> blas_;
  std::weak_ptr<const Collectives> collectives_;
};

/// The current rank's, on the device of its tensors; made at first use. Makes it the thread's
/// current device.
Context& context(Device device);
/// For the launch of a kernel of `op` on the compute stream.
Launch on(const char* op, Device device);
/// Context::found() of the current rank's.
const std::int64_t* found(Device device);

}  // namespace sg::cuda
