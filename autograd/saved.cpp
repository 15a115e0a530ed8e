#include "autograd/saved.h"

#include "autograd/segment.h"

namespace sg {

Saved::Saved(const Tensor& tensor) : defined_(tensor.defined()) {
  if (!defined_) return;
  const std::shared_ptr<Storage>& storage = tensor.storage();
  if (storage->has_source()) {
    source_ = storage->source();
    SG_CHECK(source_ != nullptr, "[saved] the source of a gathered value is gone");
    version_ = source_->version();
    offset_ = tensor.offset();
    shape_ = tensor.shape();
    strides_ = tensor.strides();
    dtype_ = tensor.dtype();
    return;
  }
  version_ = storage->version();
  // Parameters at rest are alive anyway: kept as bytes, so that their version is checked from the
  // first forward on.
  if (storage->kind() != Kind::parameters) {
    if (const std::shared_ptr<Segment>& segment = Segment::current()) {
      slot_ = segment->keep(tensor);
      if (slot_ >= 0) segment_ = segment;
      return;  // while refilling, the segment's slot is all that is wanted
    }
  }
  tensor_ = tensor;
}

Saved::~Saved() {
  if (segment_ != nullptr) segment_->drop(slot_);
}

Tensor Saved::get() const {
  if (!defined_) return {};
  if (segment_ != nullptr) return segment_->get(slot_);
  if (source_ != nullptr) {
    SG_CHECK(source_->version() == version_,
             "[backward] {} was changed between forward and backward: version {}, saved at {}; "
             "run backward before step()",
             source_->name(), source_->version(), version_);
    return Tensor(source_->get(), offset_, shape_, strides_, dtype_);
  }
  const Storage& storage = *tensor_.storage();
  SG_CHECK(
      storage.version() == version_,
      "[backward] {} ({}) was changed in place between forward and backward: version {}, saved "
      "at {}; {}",
      describe(tensor_),
      storage.name.empty() ? std::string("the output of ") + storage.label : "of " + storage.name,
      storage.version(), version_,
      storage.name.empty() ? "change a clone() of it"
                           : "run backward before the parameters change");
  return tensor_;
}

}  // namespace sg
