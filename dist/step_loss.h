// The mean loss of a step, which a GPU may still be computing.
#pragma once

#include <memory>
#include <vector>

#include "core/tensor.h"

namespace sg::dist {

class StepLoss {
 public:
  /// One that is known.
  explicit StepLoss(double value);
  /// The mean of losses of one element each. What the current rank's GPU computes travels to main
  /// memory on a lane of its own, with what kernels have found wrong until now. If nobody asks for
  /// that, the next wait for the GPU after this object's end throws it.
  explicit StepLoss(std::vector<Tensor> losses);
  /// Whether get() returns without waiting.
  bool ready() const;
  /// Waits for these losses, and for nothing that was queued after them. Throws what kernels had
  /// found wrong (an index outside an embedding), as often as it is asked: the step has updated
  /// nothing then.
  double get() const;
  /// Throws what get() would, unless somebody has been told.
  void check() const;
  /// What was found wrong is this object's from here on: what is queued now, and who waits, finds
  /// nothing.
  void taken() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace sg::dist
