// A build without CUDA has no GPUs.
#include "core/check.h"
#include "core/cuda/cuda.h"
#include "core/cuda/graph.h"

#if !SG_CUDA
namespace sg::cuda {

int device_count() { return 0; }
std::string why_none() { return "this build has no CUDA (configure with SHARDGRAD_CUDA=ON)"; }
void* allocate(Device device, std::size_t) { fail("[device] {}: {}", name_of(device), why_none()); }
void free(Memory&, void*) noexcept {}
void store(Device device, void*, std::span<const std::byte>) {
  fail("[device] {}: {}", name_of(device), why_none());
}
void* allocate_pinned(std::size_t) { fail("[memory] pinned memory is for GPUs: {}", why_none()); }
void free_pinned(void*) noexcept {}
void synchronize() {}
MemoryInfo memory_info(Device device) { fail("[device] {}: {}", name_of(device), why_none()); }

Capture::Capture(Device device) { fail("[graph] {}: {}", name_of(device), why_none()); }
Capture::~Capture() { static_cast<void>(ended_); }
std::shared_ptr<const Graph> Capture::end() { return nullptr; }

}  // namespace sg::cuda
#endif
