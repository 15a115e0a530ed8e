#include "core/storage.h"

#include "core/cuda/cuda.h"
#include "core/rank.h"

namespace sg {

std::shared_ptr<Storage> Storage::make_booked(std::size_t bytes, Device device, Kind kind,
                                              Tier tier) {
  std::shared_ptr<Storage> storage(new Storage);
  const Rank& rank = current_rank();
  rank.memory->ledger.book(kind, tier, static_cast<std::int64_t>(bytes));
  storage->account_ = rank.account;
  if (storage->account_ != nullptr)
    storage->account_->book(kind, tier, static_cast<std::int64_t>(bytes));
  if (rank.rise != nullptr && tier == Tier::device) {
    storage->rise_ = rank.rise;
    storage->rise_->add(kind, static_cast<std::int64_t>(bytes));
  }
  // From here on the destructor undoes the booking, also if the caller's allocation throws.
  storage->memory_ = rank.memory;
  storage->bytes_ = bytes;
  storage->device_ = device;
  storage->kind_ = kind;
  storage->tier_ = tier;
  return storage;
}

std::shared_ptr<Storage> Storage::allocate(std::size_t bytes, Device device, Kind kind) {
  const bool beside = device == kCpu && current_rank().device.is_cuda();
  std::shared_ptr<Storage> storage =
      make_booked(bytes, device, kind, beside ? Tier::host : Tier::device);
  if (device.is_meta() || bytes == 0) return storage;
  storage->data_ = device.is_cuda() ? cuda::allocate(device, bytes)
                                    : storage->memory_->allocator.allocate(bytes);
  return storage;
}

std::shared_ptr<Storage> Storage::allocate_pinned(std::size_t bytes, Kind kind) {
  std::shared_ptr<Storage> storage = make_booked(bytes, kCpu, kind, Tier::host);
  storage->pinned_ = true;
  if (bytes > 0) storage->data_ = storage->memory_->pinned.allocate(bytes);
  return storage;
}

std::shared_ptr<Storage> Storage::wrap(void* data, std::size_t bytes, std::shared_ptr<void> owner) {
  std::shared_ptr<Storage> storage(new Storage);
  storage->data_ = data;
  storage->bytes_ = bytes;
  storage->owner_ = std::move(owner);
  return storage;
}

Storage::~Storage() {
  if (memory_ == nullptr) return;
  if (data_ != nullptr) {
    if (device_.is_cuda())
      cuda::free(*memory_, data_);
    else
      (pinned_ ? memory_->pinned : memory_->allocator).free(data_, bytes_);
  }
  book(kind_, -static_cast<std::int64_t>(bytes_));
}

void Storage::book(Kind kind, std::int64_t bytes) {
  memory_->ledger.book(kind, tier_, bytes);
  if (account_ != nullptr) account_->book(kind, tier_, bytes);
  if (rise_ != nullptr) rise_->add(kind, bytes);
}

void Storage::set_kind(Kind kind) {
  if (memory_ == nullptr || kind == kind_) return;
  book(kind_, -static_cast<std::int64_t>(bytes_));
  book(kind, static_cast<std::int64_t>(bytes_));
  kind_ = kind;
}

}  // namespace sg
