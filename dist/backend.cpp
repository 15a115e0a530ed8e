#include "dist/backend.h"

#include <algorithm>
#include <cstdlib>

#include "core/check.h"
#include "core/cuda/cuda.h"
#include "dist/comm/nccl.h"

namespace sg::dist {

Backend backend_of(std::string_view name, std::string_view from) {
  if (name == "auto") return Backend::automatic;
  if (name == "threads") return Backend::threads;
  if (name == "gloo") return Backend::gloo;
  SG_CHECK(name == "nccl" && has_nccl(), "[launch] {} is '{}'; this build has auto, gloo{} threads",
           from, name, has_nccl() ? ", nccl and" : " and");
  return Backend::nccl;
}

Backend backend_by_environment() {
  const char* name = std::getenv("SHARDGRAD_BACKEND");
  return name == nullptr || *name == '\0' ? Backend::automatic
                                          : backend_of(name, "SHARDGRAD_BACKEND");
}

namespace {

// Its launcher has given it one already. (Were it the same for two, NCCL would refuse it.)
bool has_one_left(const ProcessEnvironment& e) {
  return e.gpus_chosen && cuda::device_count() == 1;
}

}  // namespace

std::string why_no_gpu(const ProcessEnvironment& e, Backend backend) {
  const std::string started = fmt::format("{} started {} processes", e.launcher, e.world_size);
  if (!has_nccl())
    return fmt::format(
        "{}, and this build has no NCCL to connect their GPUs; configure with SHARDGRAD_NCCL=ON, "
        "start one process with --ranks {}, or give --device cpu",
        started, e.world_size);
  if (backend == Backend::gloo)
    return fmt::format(
        "{}, and the backend gloo carries main memory alone; use auto or nccl (--backend of "
        "`shardgrad run`, else SHARDGRAD_BACKEND), or give --device cpu",
        started);
  const int gpus = cuda::device_count(), here = std::max(e.local_rank + 1, e.local_world_size);
  if (gpus >= here || has_one_left(e)) return {};
  if (gpus == 0)
    return fmt::format("{}, and process {} sees no GPU: {}; give --device cpu", started, e.rank,
                       cuda::why_none());
  return fmt::format(
      "{}, {} of them on this host, and process {} sees {} GPU{}: each needs one of its own, "
      "cuda:LOCAL_RANK. Start at most {} a host, let each process see all GPUs of its host or one "
      "that is its own (CUDA_VISIBLE_DEVICES), or give --device cpu; ranks that share a GPU are "
      "threads of one process (--ranks {})",
      started, here, e.rank, gpus, gpus == 1 ? "" : "s", gpus, e.world_size);
}

Device gpu_of(const ProcessEnvironment& e, Backend backend) {
  const std::string why = why_no_gpu(e, backend);
  SG_CHECK(why.empty(), "[launch] {}", why);
  return cuda_device(has_one_left(e) ? 0 : e.local_rank);
}

Device gpu_of_thread(int rank, int ranks) {
  const int gpus = cuda::device_count();
  SG_CHECK(gpus >= ranks,
           "[launch] with NCCL each of the {} ranks needs a GPU of its own, and this process sees "
           "{}{}; use at most {} ranks, or let all ranks share one GPU (backend threads)",
           ranks, gpus, gpus == 0 ? fmt::format(" ({})", cuda::why_none()) : std::string(), gpus);
  return cuda_device(rank);
}

}  // namespace sg::dist
