// What connects the ranks of a job, and which GPU is whose.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "core/device.h"
#include "dist/environment.h"

namespace sg::dist {

/// `automatic`: Gloo between processes, and NCCL between their GPUs; threads read each other's
/// memory, all on one GPU. `nccl`: threads, too, have a GPU each. `gloo` and `threads`: without
/// NCCL.
enum class Backend { automatic, threads, gloo, nccl };

/// Errors: another name, or NCCL where the build has none; `from` says who asks.
Backend backend_of(std::string_view name, std::string_view from);
/// SHARDGRAD_BACKEND, else automatic.
Backend backend_by_environment();

/// Why a process cannot have a GPU of its own, with how to mend it; empty if it can. Its GPU is
/// cuda:LOCAL_RANK, or the one that CUDA_VISIBLE_DEVICES leaves it (srun --gpus-per-task=1).
std::string why_no_gpu(const ProcessEnvironment& environment, Backend backend);
/// The GPU of a process. Errors: why_no_gpu().
Device gpu_of(const ProcessEnvironment& environment, Backend backend);
/// The GPU of a thread that shares none: cuda:rank. Errors: fewer GPUs than ranks.
Device gpu_of_thread(int rank, int ranks);

}  // namespace sg::dist
