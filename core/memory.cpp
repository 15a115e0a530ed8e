#include "core/memory.h"

#include <bit>
#include <cstdlib>
#include <new>

#include "core/check.h"
#include "core/cuda/cuda.h"

namespace sg {
namespace {

constexpr std::size_t kAlignment = 64;

}  // namespace

std::size_t CachingAllocator::block_size(std::size_t bytes) {
  if (bytes <= kAlignment) return kAlignment;
  // Eight classes an octave: at most 12.5 % of slack.
  const std::size_t step = std::max<std::size_t>(std::bit_ceil(bytes) / 16, kAlignment);
  return (bytes + step - 1) / step * step;
}

CachingAllocator::Source CachingAllocator::main_memory() {
  return {[](std::size_t bytes) { return std::aligned_alloc(kAlignment, bytes); },
          [](void* pointer) noexcept { std::free(pointer); }};
}

CachingAllocator::Source CachingAllocator::pinned_memory() {
  return {cuda::allocate_pinned, cuda::free_pinned};
}

CachingAllocator::~CachingAllocator() { trim(); }

void* CachingAllocator::allocate(std::size_t bytes) {
  const std::size_t size = block_size(bytes);
  {
    std::lock_guard lock(mutex_);
    const auto it = free_.find(size);
    if (it != free_.end() && !it->second.empty()) {
      void* pointer = it->second.back();
      it->second.pop_back();
      cached_ -= static_cast<std::int64_t>(size);
      return pointer;
    }
  }
  void* pointer = source_.allocate(size);
  SG_CHECK(pointer != nullptr, "[allocator] the system has no {} bytes left", size);
  return pointer;
}

void CachingAllocator::free(void* pointer, std::size_t bytes) {
  const std::size_t size = block_size(bytes);
  std::lock_guard lock(mutex_);
  free_[size].push_back(pointer);
  cached_ += static_cast<std::int64_t>(size);
}

std::int64_t CachingAllocator::cached_bytes() const {
  std::lock_guard lock(mutex_);
  return cached_;
}

void CachingAllocator::trim() {
  std::lock_guard lock(mutex_);
  for (auto& [size, blocks] : free_)
    for (void* block : blocks) source_.free(block);
  free_.clear();
  cached_ = 0;
}

}  // namespace sg
