#include "core/check.h"
#include "dist/comm/threads.h"

namespace sg::dist {

ThreadWorld::ThreadWorld(int size, WaitOptions options) : size_(size), options_(options) {
  SG_CHECK(size >= 1, "[world] needs at least 1 rank, got {}", size);
  for (int r = 0; r < size; ++r) seats_.push_back(std::make_unique<Seat>());
}

void ThreadWorld::wake_peers(int rank) {
  for (int r = 0; r < size_; ++r) {
    Seat& seat = *seats_[static_cast<std::size_t>(r)];
    if (r == rank || seat.asleep.load() == 0) continue;
    const std::lock_guard lock(seat.mutex);
    seat.wake.notify_all();
  }
}

void ThreadWorld::poison(int rank, const std::string& cause) {
  {
    const std::lock_guard lock(mutex_);
    if (failed_rank_ < 0) {
      failed_rank_ = rank;
      cause_ = cause;
    }
  }
  poisoned_.store(true);
  wake_peers(-1);
}

std::string ThreadWorld::cause() const {
  const std::lock_guard lock(mutex_);
  return failed_rank_ < 0 ? std::string() : fmt::format("rank {}: {}", failed_rank_, cause_);
}

std::pair<int, std::string> ThreadWorld::first_failure() const {
  const std::lock_guard lock(mutex_);
  return {failed_rank_, cause_};
}

}  // namespace sg::dist
