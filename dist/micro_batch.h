// Forward, loss and backward of one micro-batch in one call: what a GPU can be given at once.
//
//   auto micro_batch = engine->micro_batch([&](std::span<const Var> x) {
//     return nn::cross_entropy(net(x[0]), x[1].value());
//   });
//   for (auto [images, labels] : loader.epoch(0)) {
//     micro_batch({images, labels});
//     engine->step();
//   }
//
// On a GPU the first call with inputs of some shapes runs as ever, the second is captured as a CUDA
// graph, and from then on the graph is replayed: one launch for the whole micro-batch, and the same
// bits. The function is not called again then, so it must do the same each time, with what it is
// given: an error is what moves values between the GPU and main memory (item()) and a tensor that
// is kept; unseen goes what the function reads elsewhere and is replaced later (a mask, class
// weights), a count or a factor of its own, a parameter that is frozen meanwhile. Modes of modules
// are seen, and random numbers go on, they are keyed by the step. Each graph keeps memory, so there
// are at most 16 (by shapes, modes, first and last of a step); other calls run as ever.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "autograd/var.h"
#include "core/cuda/graph.h"
#include "core/ledger.h"

namespace sg::dist {

class Engine;

class MicroBatch {
 public:
  /// `loss` is a function of its arguments and the parameters, as that of Engine::forward().
  MicroBatch(Engine& engine, std::function<Var(std::span<const Var>)> loss)
      : engine_(engine), loss_(std::move(loss)) {}
  /// engine.backward(engine.forward(loss, inputs)).
  void operator()(std::span<const Var> inputs);
  void operator()(std::initializer_list<Var> inputs) {
    (*this)(std::span<const Var>(inputs.begin(), inputs.size()));
  }

 private:
  // Micro-batches that run the same kernels: the first of a step begins its gradients, the others
  // add theirs.
  struct Form {
    bool first = false, last = false;
    std::vector<bool> modes;  // of the modules: training or not
    bool operator==(const Form&) const = default;
  };
  struct Variant {
    Form form;
    std::vector<Tensor> inputs;  // what the graph reads
    Tensor loss, state;          // what it writes, and where random numbers find the step
    std::shared_ptr<Rise> rise = std::make_shared<Rise>();  // what the tensors between book
    std::shared_ptr<const cuda::Graph> graph;
  };
  Variant* find(std::span<const Var> inputs, const Form& form);
  void prepare(std::span<const Var> inputs, const Form& form);
  void capture(Variant& variant);

  Engine& engine_;
  std::function<Var(std::span<const Var>)> loss_;
  std::vector<std::unique_ptr<Variant>> variants_;
};

}  // namespace sg::dist
