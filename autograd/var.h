// Var: a value in the autograd graph. A handle, like Tensor: copying it does not copy the value.
#pragma once

#include <memory>
#include <string>

#include "autograd/source.h"
#include "core/tensor.h"

namespace sg {

class Node;

/// What a Var points to. A leaf (no node) holds a tensor, or a Source and the place of its value in
/// the source's storage.
struct VarImpl {
  Tensor tensor;
  std::shared_ptr<Source> source;
  std::int64_t offset = 0;  ///< in elements, within the source's storage
  Shape shape;
  DType dtype = DType::f32;

  bool requires_grad = false;
  Tensor grad;                     ///< of a leaf without sink
  std::shared_ptr<GradSink> sink;  ///< of a leaf; where its gradients go
  std::shared_ptr<Node> node;      ///< the op that made it; null for a leaf
  int output = 0;                  ///< which of the node's outputs
  std::string name;                ///< of a parameter: "conv1.weight"

  // Working state of a backward over a graph that this leaf is in.
  int uses = 0;
  int uses_left = 0;
  std::uint64_t seen = 0;
  Tensor incoming;
};

class Var {
 public:
  Var() = default;
  /// A leaf that holds `value`.
  Var(Tensor value, bool requires_grad = false);  // NOLINT: a Tensor is a constant Var
  /// A leaf whose value is produced on demand: `shape` row-major at `offset` of the source's
  /// storage.
  Var(std::shared_ptr<Source> source, std::int64_t offset, const Shape& shape, DType dtype,
      bool requires_grad);
  explicit Var(std::shared_ptr<VarImpl> impl) : impl_(std::move(impl)) {}

  bool defined() const { return impl_ != nullptr; }
  /// The value, produced now if it comes from a Source. Hold it no longer than the op that needs
  /// it.
  Tensor value() const;
  const Shape& shape() const { return impl().shape; }
  std::int64_t size(std::int64_t dim) const {
    return shape()[normalize_dim("size", dim, shape().size())];
  }
  DType dtype() const { return impl().dtype; }
  bool requires_grad() const { return impl_ != nullptr && impl_->requires_grad; }
  bool is_leaf() const { return impl().node == nullptr; }
  /// The gradient added up by backward() calls since zero_grad(); undefined before the first.
  /// Leaves without sink only.
  const Tensor& grad() const { return impl().grad; }
  void zero_grad() const { impl().grad = {}; }
  /// A leaf with the same value and no history.
  Var detach() const;
  /// Runs backward from this value; `seed` is its gradient (1 for a single element if undefined).
  /// The graph is released: a second call throws.
  void backward(const Tensor& seed = {}) const;
  /// The only element, as double.
  double item() const { return value().item(); }

  VarImpl& impl() const {
    SG_CHECK(impl_ != nullptr, "[var] the value is undefined");
    return *impl_;
  }
  const std::shared_ptr<VarImpl>& handle() const { return impl_; }

 private:
  std::shared_ptr<VarImpl> impl_;
};

/// True unless a NoGrad is in scope on this thread.
bool grad_enabled();

/// Ops in this scope record nothing: evaluation, updates of weights.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool previous_;
};

/// Undoes a NoGrad in this scope: recomputation inside a backward must save what the first forward
/// saved.
class EnableGrad {
 public:
  EnableGrad();
  ~EnableGrad();
  EnableGrad(const EnableGrad&) = delete;
  EnableGrad& operator=(const EnableGrad&) = delete;

 private:
  bool previous_;
};

}  // namespace sg
