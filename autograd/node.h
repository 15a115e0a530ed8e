// Node: one recorded op. Differentiable ops are written as a forward and a lambda for the backward,
// side by side:
//
//   Var mul(const Var& a, const Var& b) {
//     Tensor x = a.value(), y = b.value();
//     return record("mul", {a, b}, ops::mul(x, y),
//                   [x = Saved(x), y = Saved(y)](Backward& back) {
//                     if (back.needs(0)) back.set(0, ops::mul(back.grad(), y.get()));
//                     if (back.needs(1)) back.set(1, ops::mul(back.grad(), x.get()));
//                   });
//   }
//
// set() undoes broadcasting centrally: a gradient of the broadcast shape is summed to the input's
// shape.
#pragma once

#include <initializer_list>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "autograd/saved.h"
#include "autograd/var.h"

namespace sg {

class Backward;

/// An input of a node: the node that made it, or the leaf itself. Holds no bytes of the input.
struct Edge {
  std::shared_ptr<Node> node;
  int output = 0;
  std::shared_ptr<VarImpl> leaf;
  Shape shape;
  DType dtype = DType::f32;
  bool needs_grad() const { return node != nullptr || leaf != nullptr; }
};

class Node {
 public:
  explicit Node(const char* op);
  virtual ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  /// Computes the gradients of the inputs from those of the outputs, then drops what was saved.
  virtual void backward(Backward& back) = 0;
  /// Drops what was saved.
  virtual void release() = 0;

  const char* op;
  std::uint64_t sequence;  ///< creation order: descending order is a valid order of backward
  std::vector<Edge> inputs;
  struct Output {
    Shape shape;
    DType dtype;
    Device device;
  };
  std::vector<Output> outputs;
  bool done = false;  ///< backward has run; a second one throws

  // Working state of a backward.
  std::vector<Tensor> grads;  ///< of the outputs
  std::uint64_t seen = 0;
};

/// What a node's backward sees.
class Backward {
 public:
  explicit Backward(Node& node) : node_(node) {}
  /// Whether anybody wants the gradient of input i.
  bool needs(int i) const { return node_.inputs[static_cast<std::size_t>(i)].needs_grad(); }
  /// The gradient of an output; zeros if nothing flowed into it.
  Tensor grad(int output = 0);
  bool has_grad(int output) const {
    return node_.grads[static_cast<std::size_t>(output)].defined();
  }
  const Shape& input_shape(int i) const { return node_.inputs[static_cast<std::size_t>(i)].shape; }
  /// A contiguous tensor of input i's shape to be overwritten wholly and handed to set(): the
  /// gradient's final place where the leaf's sink offers one, else fresh memory.
  Tensor target(int i);
  /// Hands over the gradient of input i; of the input's shape, or of a shape it broadcasts to.
  void set(int i, Tensor gradient);

 private:
  Node& node_;
};

namespace detail {

/// True if the op must be recorded: grad mode on and an input requires it.
bool wants_node(std::span<const Var> inputs);
/// True while checkpoint() recomputes a segment: values are computed and saved again, but no nodes
/// are made.
bool refilling();
void connect(Node& node, std::span<const Var> inputs, std::span<const Tensor> outputs);
Var output_var(const std::shared_ptr<Node>& node, int output, Tensor value, const char* op,
               bool requires_grad);

template <class F>
class LambdaNode final : public Node {
 public:
  LambdaNode(const char* op, F f) : Node(op), f_(std::make_unique<F>(std::move(f))) {}
  void backward(Backward& back) override { (*f_)(back); }
  void release() override { f_.reset(); }

 private:
  std::unique_ptr<F> f_;
};

}  // namespace detail

/// Records an op of several outputs.
template <class F>
std::vector<Var> record_many(const char* op, std::span<const Var> inputs,
                             const std::vector<Tensor>& outputs, F backward) {
  const bool wanted = detail::wants_node(inputs);
  std::shared_ptr<Node> node;
  if (wanted && !detail::refilling()) {
    node = std::make_shared<detail::LambdaNode<F>>(op, std::move(backward));
    detail::connect(*node, inputs, outputs);
  }
  std::vector<Var> result;
  for (std::size_t i = 0; i < outputs.size(); ++i)
    result.push_back(detail::output_var(node, static_cast<int>(i), outputs[i], op, wanted));
  return result;
}

/// Records an op of one output; `backward` is called with a Backward& at most once.
template <class F>
Var record(const char* op, std::span<const Var> inputs, const Tensor& output, F backward) {
  const bool wanted = detail::wants_node(inputs);
  std::shared_ptr<Node> node;
  if (wanted && !detail::refilling()) {
    node = std::make_shared<detail::LambdaNode<F>>(op, std::move(backward));
    detail::connect(*node, inputs, std::span<const Tensor>(&output, 1));
  }
  return detail::output_var(node, 0, output, op, wanted);
}

template <class F>
Var record(const char* op, std::initializer_list<Var> inputs, const Tensor& output, F backward) {
  return record(op, std::span<const Var>(inputs.begin(), inputs.size()), output,
                std::move(backward));
}

}  // namespace sg
