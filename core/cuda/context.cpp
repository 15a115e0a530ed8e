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

}  // namespace

void check(cudaError_t status, std::string_view op, std::string_view call) {
  if (status == cudaSuccess) [[likely]]
    return;
  cudaGetLastError();  // it would be reported again by the next call
  fail("[{}] {} on {}: {} ({})", op, call, where(), cudaGetErrorString(status),
       cudaGetErrorName(status));
}

std::string where() {
  const Rank& rank = current_rank();
  // An error may be that of work queued long before, of a collective above all.
  const auto collectives =
      rank.memory->cuda != nullptr ? rank.memory->cuda->collectives() : nullptr;
  const std::string last = collectives != nullptr ? collectives->last() : "";
  return fmt::format("cuda:{}, rank {}{}{}", std::max(tls_device, 0), rank.index,
                     last.empty() ? "" : ", after ", last);
}

void check_call(const Launch& on, cudaError_t status, const char* call) {
  check(status, on.op, call);
}
void check_launch(const Launch& on) { check(cudaGetLastError(), on.op, "the kernel's launch"); }

OwnStream::OwnStream() {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "device", "cudaStreamCreate");
}

Context::Context(int device)
    : device_(device), found_(nullptr, {this}), workspace_(nullptr, {this}) {
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
  streams_ = std::make_unique<Streams>();
  used_before_ = memory_info(cuda_device(device)).before;
  found_.reset(static_cast<std::int64_t*>(allocate(kFoundWords * sizeof(std::int64_t))));
  clear_found("device");
}

void Context::use() const { use_device(device_); }

Context::~Context() {
  // Errors on the way out have been thrown where they were found.
  cudaSetDevice(device_);
  tls_device = device_;
  for (const cudaStream_t stream : {communication(), copies_in(), copies_out()})
    cudaStreamSynchronize(stream);
  blas_.reset();
  workspace_.reset();  // on the compute stream
  found_.reset();
  cudaStreamSynchronize(compute());
  if (!lost_graphs_.empty()) {
    lost_graphs_.clear();
    cudaDeviceGraphMemTrim(device_);
  }
  streams_.reset();
  cudaGetLastError();  // else the thread's next launch would be blamed
}

void Context::trim() {
  check(cudaStreamSynchronize(compute()), "memory", "cudaStreamSynchronize");
  cudaMemPool_t pool = nullptr;
  check(cudaDeviceGetDefaultMemPool(&pool, device_), "memory", "cudaDeviceGetDefaultMemPool");
  check(cudaMemPoolTrimTo(pool, 0), "memory", "cudaMemPoolTrimTo");
}

void* Context::allocate(std::size_t bytes) {
  void* data = nullptr;
  const cudaError_t status = cudaMallocAsync(&data, bytes, compute());
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    const MemoryInfo info = memory_info(cuda_device(device_));
    fail(
        "[memory] rank {} asked for {} bytes on cuda:{}, which has {} of {} free (this process "
        "holds {}); use a smaller batch, more ranks or a higher ZeRO stage",
        current_rank().index, bytes, device_, info.free, info.total, info.pool_reserved);
  }
  check(status, "memory", "cudaMallocAsync");
  const std::lock_guard lock(capture_);
  if (capturing_) {
    captured_.insert(data);
    allocates_ = true;
  }
  return data;
}

void* Context::workspace(std::size_t bytes) {
  if (workspace_ == nullptr) {
    workspace_.reset(static_cast<char*>(allocate(bytes)));
    workspace_bytes_ = bytes;
  }
  return workspace_.get();
}

void Context::free(void* data) noexcept {
  // Held over the call as well, or a capture could begin before it.
  const std::lock_guard lock(capture_);
  // A graph may free what it allocates, and nothing else.
  const bool captured = capturing_ && captured_.erase(data) != 0;
  if (!captured && lost_.erase(data) != 0) return;
  if (capturing_ && !captured) return freed_later_.push_back(data);
  // A failure here follows one that has been, or will be, thrown by the call that it concerns.
  if (tls_device != device_ && cudaSetDevice(device_) == cudaSuccess) tls_device = device_;
  if (cudaFreeAsync(data, compute()) != cudaSuccess) cudaGetLastError();
}

void Context::begin_capture() {
  use();
  const std::lock_guard lock(capture_);
  check(cudaStreamBeginCapture(compute(), cudaStreamCaptureModeThreadLocal), "graph",
        "cudaStreamBeginCapture");
  capturing_ = true;
  allocates_ = false;
}

Context::Captured Context::end_capture() {
  Captured captured;
  std::unique_lock lock(capture_);
  const std::size_t kept = captured_.size();
  cudaGraph_t graph = nullptr;
  const cudaError_t status = cudaStreamEndCapture(compute(), &graph);
  captured.graph.reset(graph);
  captured.allocates = allocates_;
  capturing_ = false;
  // Whoever still has one of these tensors will free it, and nothing must happen then.
  lost_.merge(captured_);
  captured_.clear();
  const std::vector<void*> memory = std::exchange(freed_later_, {});
  lock.unlock();
  for (void* data : memory) captured.memory.emplace_back(data, Free{this});
  if (status == cudaSuccess && kept == 0) return captured;
  if (captured.graph != nullptr) lost_graphs_.push_back(std::move(captured.graph));
  check(status, "graph", "cudaStreamEndCapture");
  fail(
      "[graph] {} tensors that were made while a step was captured as a CUDA graph outlive it, and "
      "every replay would overwrite them; keep none, or switch graphs off (graphs = false)",
      kept);
}

void Context::drop_capture() noexcept {
  try {
    end_capture();
  } catch (const std::exception&) {
    // What broke the capture has been thrown where it happened.
  }
  cudaGetLastError();
}

void Context::check_not_capturing(std::string_view op) {
  const std::lock_guard lock(capture_);
  SG_CHECK(!capturing_,
           "[{}] values move between the GPU and main memory while a step is captured as a CUDA "
           "graph, which a replay would not repeat; take it out of the captured function, or "
           "switch graphs off (graphs = false)",
           op);
}

void Context::check_done(cudaError_t status, std::string_view op, std::string_view call) const {
  if (const auto collectives = this->collectives()) collectives->check();
  check(status, op, call);
}

void Context::clear_found(std::string_view op) {
  check(cudaMemsetAsync(found(), 0, kFoundWords * sizeof(std::int64_t), compute()), op,
        "cudaMemsetAsync");
}

void check_found(const std::int64_t* found) {
  if (found[0] == kFine) return;
  if (found[0] == kIndexOutside)
    fail("[embedding] index {} at position {} is outside [0, {})", found[1], found[2], found[3]);
  fail("[cross_entropy] target {} at index {} is outside [0, {})", found[1], found[2], found[3]);
}

void Context::synchronize(std::string_view op) {
  check_not_capturing(op);
  std::int64_t found[kFoundWords] = {};
  const cudaError_t queued =
      cudaMemcpyAsync(found, this->found(), sizeof found, cudaMemcpyDeviceToHost, compute());
  if (queued != cudaSuccess) check_done(queued, op, "cudaMemcpyAsync");
  check_done(cudaStreamSynchronize(compute()), op, "cudaStreamSynchronize");
  if (found[0] != kFine) clear_found(op);
  check_found(found);
}

Context& context(Device device) {
  SG_CHECK(device.is_cuda(), "[device] {} is no GPU", name_of(device));
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

void* allocate_pinned(std::size_t bytes) {
  const Device device = current_rank().device;
  SG_CHECK(device.is_cuda(),
           "[memory] pinned memory is for ranks that work on a GPU, rank {} is on {}",
           current_rank().index, name_of(device));
  context(device);  // it is pinned for the thread's current device
  void* data = nullptr;
  const cudaError_t status = cudaHostAlloc(&data, bytes, cudaHostAllocDefault);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    fail(
        "[memory] rank {} asked for {} bytes of pinned main memory, and the system gives no more; "
        "use a smaller batch or less prefetch, or free memory of the host",
        current_rank().index, bytes);
  }
  check(status, "memory", "cudaHostAlloc");
  return data;
}

void free_pinned(void* data) noexcept {
  if (cudaFreeHost(data) != cudaSuccess) cudaGetLastError();
}

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

void synchronize() {
  if (current_rank().memory->cuda == nullptr) return;
  Context& c = *current_rank().memory->cuda;
  c.use();
  for (const cudaStream_t stream : {c.communication(), c.copies_in(), c.copies_out()})
    check(cudaStreamSynchronize(stream), "synchronize", "cudaStreamSynchronize");
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
  check(cudaDeviceGetGraphMemAttribute(device.index, cudaGraphMemAttrReservedMemCurrent, &bytes),
        "device", "cudaDeviceGetGraphMemAttribute");
  info.graphs = static_cast<std::int64_t>(bytes);
  info.before = info.total - info.free - info.pool_reserved - info.graphs;
  const std::shared_ptr<Context>& own = current_rank().memory->cuda;
  if (own != nullptr && own->device() == device.index) {
    info.before = own->used_before();
    info.workspace = static_cast<std::int64_t>(own->workspace_bytes());
  }
  return info;
}

}  // namespace sg::cuda
