// Where a value comes from, and where a gradient goes: the two seams through which distribution
// enters autograd.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/tensor.h"

namespace sg {

struct VarImpl;

/// Produces a storage again whenever it is wanted: a declared parameter that is filled at first
/// use, a sharded unit that is gathered, an activation that is recomputed. Autograd sees only this
/// interface.
class Source {
 public:
  virtual ~Source() = default;
  /// The storage, produced now if nobody holds it. Read-only for the caller.
  virtual std::shared_ptr<Storage> get() = 0;
  /// Changes whenever the value does; a value saved for backward must find the version it was saved
  /// at.
  virtual std::uint64_t version() const = 0;
  /// For error texts: "unit 2 (fc1.weight, fc1.bias)".
  virtual std::string name() const = 0;
};

/// Receives the gradients of leaves. Without one, a leaf adds them up in VarImpl::grad.
class GradSink {
 public:
  virtual ~GradSink() = default;
  /// A tensor of the leaf's shape and dtype into which its whole gradient may be written, saving a
  /// copy; undefined if there is none.
  virtual Tensor target(const VarImpl& leaf) {
    static_cast<void>(leaf);
    return {};
  }
  /// The gradient of this backward, complete over all uses of the leaf; called once a leaf that the
  /// graph reached, when the last node that uses it has run. `gradient` is contiguous, of the
  /// leaf's dtype, and may be the tensor that target() gave.
  virtual void ready(VarImpl& leaf, const Tensor& gradient) = 0;
};

}  // namespace sg
