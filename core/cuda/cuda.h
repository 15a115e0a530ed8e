// What the rest of the library asks about GPUs; without CUDA in the build there are none. No CUDA
// header is needed to include this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "core/device.h"

namespace sg {
struct Memory;
}

namespace sg::cuda {

/// GPUs that this process can use; 0 where there is none, no driver or no CUDA in this build.
int device_count();
/// Why device_count() is 0, for error texts and skipped tests: "the build has no CUDA
/// (SHARDGRAD_CUDA=ON)", "no CUDA-capable device is detected".
std::string why_none();

/// Bytes on the current rank's GPU, in the order of its compute stream. Errors: out of memory, with
/// what the card has; no such GPU, with why.
void* allocate(Device device, std::size_t bytes);
/// Given back, by whatever thread, to the rank that `memory` is of.
void free(Memory& memory, void* data) noexcept;

/// Writes a few words to the device in the order of the compute stream, without waiting for it and
/// whatever becomes of the host's: what changes from step to step. A multiple of 4 bytes.
void store(Device device, void* to, std::span<const std::byte> bytes);

/// Pinned main memory, which a GPU reads by itself. Slow to get and to give back: Memory::pinned
/// keeps it. Errors: there is no more of it, or no GPU.
void* allocate_pinned(std::size_t bytes);
void free_pinned(void* data) noexcept;

/// Waits until everything that the current rank has queued on its GPU is done, if it has used one.
/// Errors: what went wrong there.
void synchronize();

/// What a card's driver says beside the ledger. Bytes.
struct MemoryInfo {
  std::int64_t total = 0, free = 0;  ///< of the card, all processes
  std::int64_t pool_reserved = 0;    ///< held by this process's pool, used or not
  std::int64_t pool_used = 0;        ///< by all ranks of the process that share the card
  std::int64_t graphs = 0;           ///< held for the tensors of captured graphs
  /// Of the current rank. What was in use beside the pool when it came to the card, or is now if it
  /// has not: CUDA's own context, other processes. And what its matrix products work in, which is
  /// the pool's, but no tensor's.
  std::int64_t before = 0, workspace = 0;
};
MemoryInfo memory_info(Device device);

}  // namespace sg::cuda
