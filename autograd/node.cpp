#include "autograd/node.h"

#include <atomic>

#include "autograd/segment.h"

namespace sg {
namespace {

std::atomic<std::uint64_t> node_count{0};
// Nodes whose destruction is under way on this thread: a chain of a million nodes must not recurse.
thread_local std::vector<std::shared_ptr<Node>>* tls_dying = nullptr;

}  // namespace

Node::Node(const char* op_) : op(op_), sequence(node_count.fetch_add(1) + 1) {}

Node::~Node() {
  std::vector<std::shared_ptr<Node>> own;
  const bool outermost = tls_dying == nullptr;
  if (outermost) tls_dying = &own;
  for (Edge& edge : inputs)
    if (edge.node != nullptr) tls_dying->push_back(std::move(edge.node));
  if (!outermost) return;
  while (!own.empty()) {
    const std::shared_ptr<Node> next = std::move(own.back());
    own.pop_back();
  }
  tls_dying = nullptr;
}

namespace detail {

bool wants_node(std::span<const Var> inputs) {
  if (!grad_enabled()) return false;
  for (const Var& input : inputs)
    if (input.requires_grad()) return true;
  return false;
}

bool refilling() { return Segment::refilling(); }

void connect(Node& node, std::span<const Var> inputs, std::span<const Tensor> outputs) {
  node.inputs.reserve(inputs.size());
  for (const Var& input : inputs) {
    Edge edge;
    if (input.defined()) {
      const VarImpl& v = input.impl();
      edge.shape = v.shape;
      edge.dtype = v.dtype;
      if (v.requires_grad) {
        edge.node = v.node;
        edge.output = v.output;
        if (v.node == nullptr) edge.leaf = input.handle();
      }
    }
    node.inputs.push_back(std::move(edge));
  }
  for (const Tensor& output : outputs)
    node.outputs.push_back({output.shape(), output.dtype(), output.device()});
  node.grads.resize(outputs.size());
}

Var output_var(const std::shared_ptr<Node>& node, int output, Tensor value, const char* op,
               bool requires_grad) {
  if (value.storage()->kind() != Kind::parameters) value.storage()->label = op;
  Var result(std::move(value));
  result.impl().requires_grad = requires_grad;
  result.impl().node = node;
  result.impl().output = output;
  return result;
}

}  // namespace detail
}  // namespace sg
