#include "dist/prefetch.h"

#include "dist/arrows.h"

namespace sg::dist {

Prefetcher::Gather Prefetcher::start(int index) {
  Unit& unit = *units_[static_cast<std::size_t>(index)];
  const Device device = recorded_ != nullptr ? kMeta : unit.rest.device();
  const std::size_t bytes = static_cast<std::size_t>(unit.bytes(Layout::full, 1));
  Gather gather{index, Storage::allocate(bytes, device, Kind::gathered), nullptr};
  gather.full->label = "all_gather";
  gather.full->set_source(sources_[static_cast<std::size_t>(index)]);
  if (recorded_ == nullptr) {
    const Tensor full(gather.full, 0, {unit.padded}, {1}, unit.dtype);
    gather.operation = start_all_gather(comm_, index, unit.rest, full);
  }
  return gather;
}

void Prefetcher::finish(Gather& gather) {
  if (gather.operation == nullptr) return;
  gather.operation->wait();
  gather.operation = nullptr;
}

void Prefetcher::expect(const std::vector<int>* order) {
  drop();
  order_ = order;
  position_ = 0;
}

void Prefetcher::drop() {
  // A started gather is a collective that peers take part in: it ends even if nobody reads the result.
  finish(next_);
  next_ = {};
  current_ = {};
}

void Prefetcher::begin(int unit) {
  if (recorded_ != nullptr || current_.unit == unit || next_.unit == unit) return;
  finish(next_);
  next_ = start(unit);
}

std::shared_ptr<Storage> Prefetcher::use(int unit) {
  if (current_.unit == unit) return current_.full;
  current_ = {};
  if (recorded_ != nullptr) recorded_->push_back(unit);
  if (next_.unit == unit) {
    current_ = std::move(next_);
  } else {
    finish(next_);
    next_ = {};
    current_ = start(unit);
  }
  next_ = {};
  finish(current_);
  if (enabled_ && recorded_ == nullptr && order_ != nullptr) {
    // Resynchronise with the order: the stretch that follows the next occurrence of this unit.
    std::size_t p = position_;
    while (p < order_->size() && (*order_)[p] != unit) ++p;
    if (p < order_->size()) {
      position_ = p + 1;
      if (position_ < order_->size()) next_ = start((*order_)[position_]);
    }
  }
  return current_.full;
}

}  // namespace sg::dist
