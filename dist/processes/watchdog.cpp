#include "dist/processes/watchdog.h"

#include <algorithm>

namespace sg::dist {

Watchdog::Watchdog(std::chrono::milliseconds deadline) : deadline_(deadline) {
  if (deadline.count() > 0) thread_ = std::thread([this] { run(); });
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

// Both kinds: a flag that nobody was waiting for makes the next wait look around once more.
void Watchdog::wake(Watch& watch) {
  watch.buffer_.abortWaitRecv();
  watch.buffer_.abortWaitSend();
}

void Watchdog::interrupt() {
  const std::lock_guard lock(mutex_);
  for (Watch* watch : watches_) wake(*watch);
}

void Watchdog::run() {
  const auto interval = std::clamp<std::chrono::milliseconds>(
      deadline_ / 8, std::chrono::milliseconds(5), std::chrono::milliseconds(500));
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, interval, [this] { return stop_; })) {
    const Clock::time_point now = Clock::now();
    for (Watch* watch : watches_) {
      if (now - watch->start_ < deadline_) continue;
      watch->expired_ = true;
      wake(*watch);
    }
  }
}

Watchdog::Watch::Watch(Watchdog& dog, Buffer& buffer) : dog_(dog), buffer_(buffer) {
  const std::lock_guard lock(dog.mutex_);
  place_ = dog.watches_.insert(dog.watches_.end(), this);
}

Watchdog::Watch::~Watch() {
  const std::lock_guard lock(dog_.mutex_);
  dog_.watches_.erase(place_);
}

bool Watchdog::Watch::expired() const {
  const std::lock_guard lock(dog_.mutex_);
  return expired_;
}

}  // namespace sg::dist
