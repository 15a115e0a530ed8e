#include "dist/prefetch.h"

#include "dist/arrows.h"

namespace sg::dist {

Prefetcher::Gather Prefetcher::start(int index) {
  const bool counts = recorded_ == nullptr && in_pass_;
  const Scoped account(current_rank().account, counts ? account_ : nullptr);
  Unit& unit = *units_[static_cast<std::size_t>(index)];
  const Device device = recorded_ != nullptr ? kMeta : unit.rest.device();
  const std::size_t bytes = static_cast<std::size_t>(unit.bytes(Layout::full, 1));
  const std::shared_ptr<Storage> storage = Storage::allocate(bytes, device, Kind::gathered);
  storage->label = "all_gather";
  storage->set_source(sources_[static_cast<std::size_t>(index)]);
  const Tensor full(storage, 0, {unit.padded}, {1}, unit.dtype);
  if (recorded_ != nullptr) return {index, Ready<Tensor>(full)};
  return {index, start_all_gather(comm_, unit.label(), unit.rest, full)};
}

Prefetcher::Pass::Pass(Prefetcher& prefetcher, const std::vector<int>* order)
    : prefetcher_(prefetcher) {
  prefetcher_.drop();
  prefetcher_.order_ = order;
  prefetcher_.position_ = 0;
  prefetcher_.in_pass_ = true;
}

Prefetcher::Pass::~Pass() { prefetcher_.in_pass_ = false; }

void Prefetcher::Pass::end() {
  prefetcher_.drop();
  prefetcher_.in_pass_ = false;
}

void Prefetcher::drop() {
  // A started gather is a collective that peers take part in: it ends even if nobody reads the
  // result.
  next_.full.get();
  next_ = {};
  current_ = {};
}

std::shared_ptr<Storage> Prefetcher::look_at(int unit) {
  Rank& rank = current_rank();
  const Scoped phase(rank.phase, rank.phase == Phase::training ? Phase::inspection : rank.phase);
  return start(unit).full.get().storage();
}

std::shared_ptr<Storage> Prefetcher::use(int unit) {
  if (!in_pass_ && recorded_ == nullptr) return look_at(unit);
  if (current_.unit == unit) return current_.full.get().storage();
  current_ = {};
  if (recorded_ != nullptr) recorded_->push_back(unit);
  if (next_.unit == unit) {
    current_ = std::move(next_);
  } else {
    next_.full.get();
    next_ = {};
    current_ = start(unit);
  }
  next_ = {};
  current_.full.get();
  if (enabled_ && recorded_ == nullptr && order_ != nullptr) {
    // Resynchronise with the order: the stretch that follows the next occurrence of this unit.
    std::size_t p = position_;
    while (p < order_->size() && (*order_)[p] != unit) ++p;
    if (p < order_->size()) {
      position_ = p + 1;
      if (position_ < order_->size()) next_ = start((*order_)[position_]);
    }
  }
  return current_.full.get().storage();
}

}  // namespace sg::dist
