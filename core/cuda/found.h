// How a kernel reports what it finds wrong, which the host cannot know without waiting for it: into
// Context::found(), which the next wait reads.
#pragma once

#include <cstdint>

#include "core/kernels/host_device.h"

namespace sg::cuda {

enum Found : std::int64_t { kFine = 0, kIndexOutside = 1, kTargetOutside = 2 };

/// found = {code, value, place, limit}, unless something was reported before.
SG_HD void report(std::int64_t* found, Found code, std::int64_t value, std::int64_t place,
                  std::int64_t limit) {
#if defined(__CUDA_ARCH__)
  if (atomicCAS(reinterpret_cast<unsigned long long*>(found),
                static_cast<unsigned long long>(kFine),
                static_cast<unsigned long long>(code)) != kFine)
    return;
#else
  if (found[0] != kFine) return;
  found[0] = code;
#endif
  found[1] = value;
  found[2] = place;
  found[3] = limit;
}

}  // namespace sg::cuda
