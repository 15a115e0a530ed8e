#include "core/cuda/context.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "core/check.h"
#include "core/cuda/cuda.h"
#include "core/cuda/found.h"
#include "core/cuda/kernels.h"

namespace sg::cuda {
namespace {

thread_local int tls_device = -1;

void use_device(int device) {
  if (tls_device == device) return;
  check(cudaSetDevice(device), "device", "cudaSetDevice");
  tls_device = device;
}

// An error may be that of work queued long before, of a collective above all.
std::string last_collective(const Rank& rank) {
  const auto collectives =
      rank.memory->cuda != nullptr ? rank.memory->cuda->collectives() : nullptr;
  const std::string last = collectives != nullptr ? collectives->last() : "";
  return last.empty() ? last : ", after " + last;
}

// What was waited for may be the end that giving them up has put to it.
void check_collectives(const Context& context) {
  if (const auto collectives = context.collectives()) collectives->check();
}

}  // namespace

void check(cudaError_t status, std::string_view op, std::string_view call) {
  if (status == cudaSuccess) [[likely]]
    return;
  cudaGetLastError();  // it would be reported again by the next call
  const Rank& rank = current_rank();
  fail("[{}] {} on cuda:{}, rank {}{}: {} ({})", op, call, std::max(tls_device, 0), rank.index,
       last_collective(rank), cudaGetErrorString(status), cudaGetErrorName(status));
}

void check_call(const Launch& on, cudaError_t status, const char* call) {
  check(status, on.op, call);
}
void check_launch(const Launch& on) { check(cudaGetLastError(), on.op, "the kernel's launch"); }

Context::Context(int device) : device_(device) {
  const int count = device_count();
  SG_CHECK(count > 0, "[device] cuda:{} asked for, but {}", device, why_none());
  SG_CHECK(device >= 0 && device < count,
           "[device] there is no cuda:{}; this process sees {} GPU{} (CUDA_VISIBLE_DEVICES)",
           device, count, count == 1 ? "" : "s");
  use();
  check(cudaDeviceGetAttribute(&processors_, cudaDevAttrMultiProcessorCount, device), "device",
        "cudaDeviceGetAttribute");
  int direct = 0;
  check(cudaDeviceGetAttribute(&direct, cudaDevAttrPageableMemoryAccess, device), "device",
        "cudaDeviceGetAttribute");
  reads_host_memory_ = direct != 0;
  // What is freed stays in the pool: a training step asks for the same bytes again.
  cudaMemPool_t pool = nullptr;
  check(cudaDeviceGetDefaultMemPool(&pool, device), "device", "cudaDeviceGetDefaultMemPool");
  std::uint64_t keep = UINT64_MAX;
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep), "device",
        "cudaMemPoolSetAttribute");
  check(cudaStreamCreateWithFlags(&compute_, cudaStreamNonBlocking), "device", "cudaStreamCreate");
  check(cudaStreamCreateWithFlags(&communication_, cudaStreamNonBlocking), "device",
        "cudaStreamCreate");
  found_ = static_cast<std::int64_t*>(allocate(4 * sizeof(std::int64_t)));
  check(cudaMemsetAsync(found_, 0, 4 * sizeof(std::int64_t), compute_), "device",
        "cudaMemsetAsync");
}

void Context::use() const { use_device(device_); }

Context::~Context() {
  // Errors on the way out have been thrown where they were found.
  cudaSetDevice(device_);
  tls_device = device_;
  if (communication_ != nullptr) cudaStreamSynchronize(communication_);
  blas_.reset();  // its memory is freed on `compute_`
  if (found_ != nullptr) cudaFreeAsync(found_, compute_);
  if (compute_ != nullptr) cudaStreamSynchronize(compute_);
  if (communication_ != nullptr) cudaStreamDestroy(communication_);
  if (compute_ != nullptr) cudaStreamDestroy(compute_);
  cudaGetLastError();  // else the thread's next launch would be blamed
}

void* Context::allocate(std::size_t bytes) {
  void* data = nullptr;
  const cudaError_t status = cudaMallocAsync(&data, bytes, compute_);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    const MemoryInfo info = memory_info(cuda_device(device_));
    fail(
        "[memory] rank {} asked for {} bytes on cuda:{}, which has {} of {} free (this process "
        "holds {}); use a smaller batch, more ranks or a higher ZeRO stage",
        current_rank().index, bytes, device_, info.free, info.total, info.pool_reserved);
  }
  check(status, "memory", "cudaMallocAsync");
  if (capturing_) captured_.insert(data);
  lost_.erase(data);  // the address is used anew
  return data;
}

void Context::free(void* data) noexcept {
  // A graph may free what it allocates, and nothing else.
  if (capturing_ && captured_.erase(data) == 0) return freed_later_.push_back(data);
  if (lost_.erase(data) != 0) return;
  // A failure here follows one that has been, or will be, thrown by the call that it concerns.
  if (tls_device != device_ && cudaSetDevice(device_) == cudaSuccess) tls_device = device_;
  if (cudaFreeAsync(data, compute_) != cudaSuccess) cudaGetLastError();
}

void Context::begin_capture() {
  use();
  check(cudaStreamBeginCapture(compute_, cudaStreamCaptureModeThreadLocal), "graph",
        "cudaStreamBeginCapture");
  capturing_ = true;
}

cudaGraph_t Context::end_capture() {
  cudaGraph_t graph = nullptr;
  const std::size_t kept = captured_.size();
  const cudaError_t status = cudaStreamEndCapture(compute_, &graph);
  capturing_ = false;
  lost_.merge(captured_);
  captured_.clear();
  for (void* data : std::exchange(freed_later_, {})) free(data);
  check(status, "graph", "cudaStreamEndCapture");
  if (kept == 0) return graph;
  cudaGraphDestroy(graph);
  fail(
      "[graph] {} tensors that were made while a step was captured as a CUDA graph outlive it, and "
      "every replay would overwrite them; keep none, or switch graphs off (graphs = false)",
      kept);
}

void Context::drop_capture() noexcept {
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(compute_, &graph);
  if (graph != nullptr) cudaGraphDestroy(graph);
  capturing_ = false;
  lost_.merge(captured_);
  captured_.clear();
  for (void* data : std::exchange(freed_later_, {})) free(data);
  cudaGetLastError();  // what broke the capture has been thrown where it happened
}

void Context::check_not_capturing(std::string_view op) const {
  SG_CHECK(!capturing_,
           "[{}] values move between the GPU and main memory while a step is captured as a CUDA "
           "graph, which a replay would not repeat; take it out of the captured function, or "
           "switch graphs off (graphs = false)",
           op);
}

void Context::synchronize(std::string_view op) {
  check_not_capturing(op);
  std::int64_t found[4] = {};
  // (Also what another error of the device follows from.)
  const auto checked = [&](cudaError_t status, std::string_view call) {
    if (status != cudaSuccess) check_collectives(*this);
    check(status, op, call);
  };
  checked(cudaMemcpyAsync(found, found_, sizeof found, cudaMemcpyDeviceToHost, compute_),
          "cudaMemcpyAsync");
  checked(cudaStreamSynchronize(compute_), "cudaStreamSynchronize");
  check_collectives(*this);
  if (found[0] == kFine) return;
  check(cudaMemsetAsync(found_, 0, 4 * sizeof(std::int64_t), compute_), op, "cudaMemsetAsync");
  if (found[0] == kIndexOutside)
    fail("[embedding] index {} at position {} is outside [0, {})", found[1], found[2], found[3]);
  fail("[cross_entropy] target {} at index {} is outside [0, {})", found[1], found[2], found[3]);
}

Context& context(Device device) {
  std::shared_ptr<Context>& own = current_rank().memory->cuda;
  if (own == nullptr) own = std::make_shared<Context>(device.index);
  SG_CHECK(own->device() == device.index,
           "[device] rank {} works on cuda:{}, and cannot use cuda:{} besides",
           current_rank().index, own->device(), device.index);
  own->use();
  return *own;
}

Launch on(const char* op, Device device) {
  const Context& c = context(device);
  return {op, c.compute(), c.processors()};
}

const std::int64_t* found(Device device) { return context(device).found(); }

void* allocate(Device device, std::size_t bytes) { return context(device).allocate(bytes); }
void store(Device device, void* to, std::span<const std::byte> bytes) {
  std::vector<std::uint32_t> words(bytes.size() / sizeof(std::uint32_t));
  SG_CHECK(bytes.size_bytes() == words.size() * sizeof(std::uint32_t),
           "[store] {} bytes are no multiple of 4", bytes.size());
  std::memcpy(words.data(), bytes.data(), bytes.size());
  store(on("store", device), to, words.data(), std::ssize(words));
}

void free(Memory& memory, void* data) noexcept { memory.cuda->free(data); }

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return count;
}

std::string why_none() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (status != cudaSuccess) return cudaGetErrorString(status);
  return count == 0 ? "no GPU is visible (CUDA_VISIBLE_DEVICES)" : "";
}

void synchronize(Device device) {
  Context& c = context(device);
  check(cudaStreamSynchronize(c.communication()), "synchronize", "cudaStreamSynchronize");
  c.synchronize("synchronize");
}

MemoryInfo memory_info(Device device) {
  MemoryInfo info;
  std::size_t free = 0, total = 0;
  use_device(device.index);
  check(cudaMemGetInfo(&free, &total), "device", "cudaMemGetInfo");
  info.free = static_cast<std::int64_t>(free);
  info.total = static_cast<std::int64_t>(total);
  cudaMemPool_t pool = nullptr;
  check(cudaDeviceGetDefaultMemPool(&pool, device.index), "device", "cudaDeviceGetDefaultMemPool");
  std::uint64_t bytes = 0;
  check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &bytes), "device",
        "cudaMemPoolGetAttribute");
  info.pool_reserved = static_cast<std::int64_t>(bytes);
  check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &bytes), "device",
        "cudaMemPoolGetAttribute");
  info.pool_used = static_cast<std::int64_t>(bytes);
  return info;
}

}  // namespace sg::cuda
