#include "core/cuda/graph.h"

#include <utility>
#include <vector>

#include "core/check.h"
#include "core/cuda/context.h"
#include "core/cuda/cuda.h"

namespace sg::cuda {
namespace {

// A graph's tensors are no part of the pool, and not in the ledger's account of a step's end.
void check_memory(const Context& context, cudaError_t status, std::string_view call) {
  if (status != cudaErrorMemoryAllocation) return check(status, "graph", call);
  cudaGetLastError();
  const MemoryInfo info = memory_info(cuda_device(context.device()));
  fail(
      "[memory] rank {}: the tensors of a step that is captured as a CUDA graph have a place of "
      "their own, for which cuda:{} has {} of {} bytes free; switch graphs off (graphs = false), "
      "or use a smaller batch",
      current_rank().index, context.device(), info.free, info.total);
}

class Executable final : public Graph {
 public:
  Executable(std::shared_ptr<Context> context, Context::Captured captured)
      : context_(std::move(context)), memory_(std::move(captured.memory)) {
    // What the step has left in the pool, when it ran by itself, is needed for the graph's tensors.
    if (captured.allocates) context_->trim();
    check_memory(*context_, cudaGraphInstantiate(&graph_, captured.graph.get(), 0),
                 "cudaGraphInstantiate");
  }
  ~Executable() override {
    // A replay that still runs ends first: its memory goes with the graph.
    cudaStreamSynchronize(context_->compute());
    cudaGraphExecDestroy(graph_);
    cudaDeviceGraphMemTrim(context_->device());
    memory_.clear();
    cudaGetLastError();  // else the thread's next launch would be blamed
  }
  void launch() const override {
    wait(*context_, Lane::compute, *mark(*context_, Lane::communication));
    check_memory(*context_, cudaGraphLaunch(graph_, context_->compute()), "cudaGraphLaunch");
  }

 private:
  std::shared_ptr<Context> context_;
  std::vector<Context::Owned<void>> memory_;
  cudaGraphExec_t graph_ = nullptr;
};

}  // namespace

Capture::Capture(Device device) {
  context(device);
  context_ = current_rank().memory->cuda;
  context_->begin_capture();
  try {
    wait(*context_, Lane::communication, *mark(*context_, Lane::compute));
  } catch (...) {
    context_->drop_capture();
    throw;
  }
}

Capture::~Capture() {
  if (!ended_) context_->drop_capture();
}

std::shared_ptr<const Graph> Capture::end() {
  wait(*context_, Lane::compute, *mark(*context_, Lane::communication));
  ended_ = true;
  return std::make_shared<Executable>(context_, context_->end_capture());
}

}  // namespace sg::cuda
