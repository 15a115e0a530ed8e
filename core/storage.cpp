#include "core/storage.h"

#include "core/cuda/cuda.h"
#include "core/rank.h"

namespace sg {

std::shared_ptr<Storage> Storage::allocate(std::size_t bytes, Device device, Kind kind) {
  std::shared_ptr<Storage> storage(new Storage);
  const std::shared_ptr<Memory>& memory = current_rank().memory;
  memory->ledger.book(kind, Tier::device, static_cast<std::int64_t>(bytes));
  storage->account_ = current_rank().account;
  if (storage->account_ != nullptr)
    storage->account_->book(kind, Tier::device, static_cast<std::int64_t>(bytes));
  // From here on the destructor undoes the booking, also if the allocation below throws.
  storage->memory_ = memory;
  storage->bytes_ = bytes;
  storage->device_ = device;
  storage->kind_ = kind;
  if (device.is_meta() || bytes == 0) return storage;
  storage->data_ =
      device.is_cuda() ? cuda::allocate(device, bytes) : memory->allocator.allocate(bytes);
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
      memory_->allocator.free(data_, bytes_);
  }
  book(kind_, -static_cast<std::int64_t>(bytes_));
}

void Storage::book(Kind kind, std::int64_t bytes) {
  memory_->ledger.book(kind, Tier::device, bytes);
  if (account_ != nullptr) account_->book(kind, Tier::device, bytes);
}

void Storage::set_kind(Kind kind) {
  if (memory_ == nullptr || kind == kind_) return;
  book(kind_, -static_cast<std::int64_t>(bytes_));
  book(kind, static_cast<std::int64_t>(bytes_));
  kind_ = kind;
}

}  // namespace sg
