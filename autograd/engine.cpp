#include "autograd/engine.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "autograd/node.h"
#include "core/ops.h"

namespace sg {
namespace {

// Numbers every backward, so that marks left by an earlier one (on any thread) are recognised as
// old.
std::atomic<std::uint64_t> run_count{0};

// Nobody else sees these bytes, and all of them belong to the tensor.
bool owns_alone(const Tensor& t) { return t.storage().use_count() == 1 && t.is_dense(); }

// Sums into `slot`. A first gradient is taken as it is: an op may have handed the same one to
// several inputs, so it is changed in place only if nobody else has it.
void accumulate(Tensor& slot, Tensor gradient) {
  if (!slot.defined())
    slot = std::move(gradient);
  else if (owns_alone(slot))
    ops::add_(slot, gradient);
  else
    slot = ops::add(slot, gradient);
}

// All nodes that the root reaches, newest first, and the number of uses of every leaf.
std::vector<std::shared_ptr<Node>> reachable(const std::shared_ptr<Node>& root, std::uint64_t run) {
  std::vector<std::shared_ptr<Node>> nodes{root};
  root->seen = run;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const std::shared_ptr<Node> node = nodes[i];
    SG_CHECK(!node->done,
             "[backward] the graph was already used: the saved values of {} are gone; run the "
             "forward again before a second backward",
             node->op);
    for (Edge& edge : node->inputs) {
      if (edge.leaf != nullptr) {
        VarImpl& leaf = *edge.leaf;
        if (leaf.seen != run) {
          leaf.seen = run;
          leaf.uses = 0;
          leaf.incoming = {};
        }
        leaf.uses_left = ++leaf.uses;
      } else if (edge.node != nullptr && edge.node->seen != run) {
        edge.node->seen = run;
        nodes.push_back(edge.node);
      }
    }
  }
  std::sort(nodes.begin(), nodes.end(),
            [](const auto& a, const auto& b) { return a->sequence > b->sequence; });
  return nodes;
}

void finish_leaf(VarImpl& leaf, Tensor gradient) {
  if (leaf.sink != nullptr) {
    leaf.sink->ready(leaf, gradient.contiguous());
    return;
  }
  // What stays is what the ledger calls a gradient, and must not share memory with what an op may
  // still hold.
  Scoped kind(current_rank().kind, Kind::gradients);
  if (leaf.grad.defined()) {
    accumulate(leaf.grad, std::move(gradient));
  } else if (owns_alone(gradient) && gradient.is_contiguous() &&
             gradient.storage()->bytes() == static_cast<std::size_t>(gradient.bytes())) {
    gradient.storage()->set_kind(Kind::gradients);
    leaf.grad = std::move(gradient);
  } else {
    leaf.grad = gradient.contiguous();
    if (leaf.grad.storage() == gradient.storage()) leaf.grad = gradient.clone();
  }
}

void use_leaf(VarImpl& leaf) {
  if (--leaf.uses_left > 0) return;
  Tensor gradient = std::exchange(leaf.incoming, {});
  if (!gradient.defined()) {
    const Device device = leaf.tensor.defined() ? leaf.tensor.device() : current_rank().device;
    gradient = Tensor::zeros(leaf.shape, leaf.dtype, device);
  }
  finish_leaf(leaf, std::move(gradient));
}

}  // namespace

void run_backward(const Var& root, const Tensor& seed) {
  SG_CHECK(root.requires_grad(),
           "[backward] the value does not depend on anything that requires "
           "a gradient");
  Tensor gradient = seed;
  if (!gradient.defined()) {
    SG_CHECK(numel(root.shape()) == 1,
             "[backward] a value of shape {} needs a seed; only a single element has a default",
             root.shape());
    // Of the root's own device: a dry run on meta has a meta root.
    const Device device =
        root.is_leaf() ? current_rank().device : root.impl().node->outputs[0].device;
    gradient = Tensor::empty(root.shape(), root.dtype(), device);
    gradient.fill(1);
  }
  SG_CHECK(gradient.shape() == root.shape() && gradient.dtype() == root.dtype(),
           "[backward] the seed is {}, the value is {} {}", describe(gradient),
           name_of(root.dtype()), root.shape());
  if (root.is_leaf()) {
    finish_leaf(root.impl(), gradient);
    return;
  }
  const NoGrad no_grad;
  std::vector<std::shared_ptr<Node>> nodes =
      reachable(root.impl().node, run_count.fetch_add(1) + 1);
  root.impl().node->grads[static_cast<std::size_t>(root.impl().output)] = gradient;
  gradient = {};
  for (std::shared_ptr<Node>& node : nodes) {
    node->done = true;
    const bool flows = std::any_of(node->grads.begin(), node->grads.end(),
                                   [](const Tensor& g) { return g.defined(); });
    if (flows) {
      Backward back(*node);
      node->backward(back);
    }
    node->release();
    for (Tensor& g : node->grads) g = {};
    for (Edge& edge : node->inputs)
      if (edge.leaf != nullptr) use_leaf(*edge.leaf);
    node.reset();  // frees what only this node kept
  }
}

Tensor Backward::grad(int output) {
  Tensor& g = node_.grads[static_cast<std::size_t>(output)];
  if (!g.defined()) {
    const Node::Output& out = node_.outputs[static_cast<std::size_t>(output)];
    g = Tensor::zeros(out.shape, out.dtype, out.device);
  }
  return g;
}

Tensor Backward::target(int i) {
  const Edge& edge = node_.inputs[static_cast<std::size_t>(i)];
  if (edge.leaf != nullptr && edge.leaf->uses == 1 && edge.leaf->sink != nullptr) {
    Tensor place = edge.leaf->sink->target(*edge.leaf);
    if (place.defined()) return place;
  }
  return Tensor::empty(edge.shape, edge.dtype, node_.outputs[0].device);
}

void Backward::set(int i, Tensor gradient) {
  const Edge& edge = node_.inputs[static_cast<std::size_t>(i)];
  if (!edge.needs_grad()) return;
  SG_CHECK(gradient.dtype() == edge.dtype, "[backward of {}] gradient {} of an input of dtype {}",
           node_.op, describe(gradient), name_of(edge.dtype));
  if (gradient.shape() != edge.shape) gradient = ops::sum_to(gradient, edge.shape);
  Tensor& slot = edge.leaf != nullptr ? edge.leaf->incoming
                                      : edge.node->grads[static_cast<std::size_t>(edge.output)];
  accumulate(slot, std::move(gradient));
}

}  // namespace sg
