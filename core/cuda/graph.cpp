#include "core/cuda/graph.h"

#include <utility>

#include "core/check.h"
#include "core/cuda/context.h"

namespace sg::cuda {
namespace {

class Executable final : public Graph {
 public:
  Executable(std::shared_ptr<Context> context, cudaGraph_t graph) : context_(std::move(context)) {
    const cudaError_t status = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "graph", "cudaGraphInstantiate");
  }
  ~Executable() override {
    // A replay that still runs ends first: its memory goes with the graph.
    cudaStreamSynchronize(context_->compute());
    cudaGraphExecDestroy(graph_);
    cudaGetLastError();  // else the thread's next launch would be blamed
  }
  void launch() const override {
    wait(*context_, Lane::compute, *mark(*context_, Lane::communication));
    check(cudaGraphLaunch(graph_, context_->compute()), "graph", "cudaGraphLaunch");
  }

 private:
  std::shared_ptr<Context> context_;
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
