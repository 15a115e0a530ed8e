// The shared recipe of one checkpointed stretch of the graph: its inputs, its function, and the
// slots of everything its ops saved. Used by Saved and checkpoint() only.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "autograd/saved.h"
#include "autograd/var.h"
#include "core/rank.h"

namespace sg {

class Segment : public std::enable_shared_from_this<Segment> {
 public:
  using Function = std::function<Var(std::span<const Var>)>;

  Segment(Function fn, std::span<const Var> inputs);

  /// First forward: runs fn and drops what its ops save.
  Var run(std::span<const Var> inputs);
  /// The segment that is being run on this thread (first or second time), or null.
  static const std::shared_ptr<Segment>& current();
  static bool refilling();

  /// Called by Saved for each value an op saves: the slot's number in the first forward, -1 while
  /// refilling.
  int keep(const Tensor& tensor);
  /// The value of a slot; recomputes the whole segment at the first call.
  Tensor get(int slot);
  void drop(int slot);

 private:
  void refill();

  Function fn_;
  std::vector<Saved> inputs_;
  std::vector<bool> input_requires_grad_;
  std::vector<Tensor> slots_;
  int count_ = 0;  // slots of the first forward
  bool filled_ = false;
  bool refilling_this_ = false;
  StepState state_;
};

}  // namespace sg
