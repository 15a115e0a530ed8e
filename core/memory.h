// A rank's memory: the ledger that books it and a caching allocator. Logical (requested) bytes are
// booked; what the cache keeps beyond them is `cached_bytes`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "core/ledger.h"

namespace sg {

namespace cuda {
class Context;  // core/cuda/context.h
}

/// Blocks of main memory, 64-byte aligned, kept by size class when freed: a training step asks for
/// the same sizes again and again, and fresh pages cost more than the kernels that fill them.
class CachingAllocator {
 public:
  /// Where blocks come from, and go at last. `allocate` throws what it has to say, or gives null.
  struct Source {
    void* (*allocate)(std::size_t bytes);
    void (*free)(void* pointer) noexcept;
  };
  static Source main_memory();
  static Source pinned_memory();  ///< that GPUs copy from by themselves

  explicit CachingAllocator(Source source = main_memory()) : source_(source) {}
  ~CachingAllocator();
  CachingAllocator(const CachingAllocator&) = delete;
  CachingAllocator& operator=(const CachingAllocator&) = delete;
  void* allocate(std::size_t bytes);
  void free(void* pointer, std::size_t bytes);
  /// Bytes held in free blocks.
  std::int64_t cached_bytes() const;
  /// Returns all free blocks to the system.
  void trim();
  /// The size that a request is rounded up to.
  static std::size_t block_size(std::size_t bytes);

 private:
  const Source source_;
  mutable std::mutex mutex_;  // a tensor may die on another thread than its rank's
  std::map<std::size_t, std::vector<void*>> free_;
  std::int64_t cached_ = 0;
};

/// Shared by a rank and by every storage it made, so that a storage can outlive its rank.
struct Memory {
  Ledger ledger;
  CachingAllocator allocator;
  CachingAllocator pinned{CachingAllocator::pinned_memory()};
  std::shared_ptr<cuda::Context> cuda;  ///< made when the rank first uses its GPU
};

}  // namespace sg
