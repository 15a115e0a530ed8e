// Work that is captured once and replayed: CUDA graphs. A net of small layers is bound by launches,
// of which a replay needs one. No CUDA header is needed to include this.
#pragma once

#include <memory>

#include "core/device.h"

namespace sg::cuda {

class Context;

/// Captured work, with the memory that was allocated for it.
class Graph {
 public:
  virtual ~Graph() = default;
  /// Queues it on the lanes, after everything that was queued there before.
  virtual void launch() const = 0;
};

/// From here to end() what this thread queues on the rank's lanes is recorded, not run. Whatever
/// waits for the GPU meanwhile is an error (a value that is read, a copy from or to main memory),
/// and so are tensors that were made meanwhile and outlive end(). Tensors from before that die
/// meanwhile are freed afterwards. Without end(), what was recorded is dropped.
class Capture {
 public:
  /// The current rank's lanes on `device`.
  explicit Capture(Device device);
  ~Capture();
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  std::shared_ptr<const Graph> end();

 private:
  std::shared_ptr<Context> context_;
  bool ended_ = false;
};

}  // namespace sg::cuda
