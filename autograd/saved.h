// Saved: what an op keeps for its backward, bytes or a recipe. Sharded parameters and recomputed
// activations are recipes: autograd need not know of either, and ops are written the same for all.
//
//   bytes     a tensor handle and the version it had; a change in place since then is an error
//   source    a view of a storage that a Source produced: offset, shape and strides; gathered
//             again when asked for
//   segment   an activation inside checkpoint(): a slot that recomputation refills
#pragma once

#include <cstdint>
#include <memory>

#include "autograd/source.h"
#include "core/tensor.h"

namespace sg {

class Segment;  // autograd/segment.h

class Saved {
 public:
  Saved() = default;
  /// Keeps `tensor` (undefined is kept as undefined).
  explicit Saved(const Tensor& tensor);
  Saved(Saved&& other) noexcept = default;
  Saved& operator=(Saved&& other) noexcept = default;
  ~Saved();

  /// The value, produced again if it is a recipe. Throws if it was changed since it was saved.
  Tensor get() const;
  bool defined() const { return defined_; }

 private:
  Tensor tensor_;
  std::uint64_t version_ = 0;
  std::shared_ptr<Source> source_;
  std::shared_ptr<Segment> segment_;
  int slot_ = -1;
  bool defined_ = false;
  // A recipe's view.
  std::int64_t offset_ = 0;
  Shape shape_;
  Strides strides_;
  DType dtype_ = DType::f32;
};

}  // namespace sg
