// What the tests of ranks with a GPU each, connected by NCCL, share: with the stand-in of
// tests/fake_cuda, or with as many cards as there are.
#pragma once

#include <fmt/format.h>

#include <chrono>

#include "core/cuda/cuda.h"
#include "dist/arrows.h"
#include "dist/comm/nccl.h"
#include "tests/dist/training.h"

namespace sg::dist {

#define SKIP_WITHOUT_GPUS(n)                                                           \
  if (!current_rank().device.is_cuda()) GTEST_SKIP() << "tensors are on the CPU here"; \
  if (!has_nccl()) GTEST_SKIP() << "this build has no NCCL";                           \
  if (cuda::device_count() < (n))                                                      \
  GTEST_SKIP() << "needs " << (n) << " GPUs, there are " << cuda::device_count()

inline LaunchOptions with_nccl(bool deterministic = true,
                               milliseconds deadline = milliseconds(20'000)) {
  return {.threads = 1,
          .deadline = deadline,
          .device = cuda_device(0),
          .backend = Backend::nccl,
          .deterministic = deterministic};
}

/// The second collective of a test that fails there.
inline constexpr const char* kSecond = "all_gather of unit 1, fc1 (64 x f32, collective 1)";

/// Whole values, so the CPU waits for the GPU.
inline void gather(Comm& comm, const UnitLabel& unit, std::int64_t count = 64) {
  const Tensor mine = Tensor::zeros({count}), full = Tensor::zeros({count * comm.size()});
  start_all_gather(comm, unit, mine, full).get().to_doubles();
}

}  // namespace sg::dist
