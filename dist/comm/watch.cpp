#include "dist/comm/watch.h"

#include <utility>

namespace sg::dist {
namespace {

// Late enough to cost nothing beside a step, soon enough for a failure.
constexpr std::chrono::milliseconds kInterval{5};
// Where nothing is queued nobody waits.
constexpr std::chrono::milliseconds kIdle{50};

}  // namespace

Watch::Watch(Device device, Rules rules)
    : device_(device), rules_(std::move(rules)), thread_([this] { run(); }) {}

void Watch::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Watch::add(const Posting& posting, const MarkPtr& finished) {
  {
    const std::lock_guard lock(mutex_);
    entries_.push_back({posting, finished});
    end_ = posting.sequence + 1;
  }
  changed_.notify_all();
}

bool Watch::has_room() const {
  const std::lock_guard lock(mutex_);
  return entries_.size() < kMost || cuda::reached(*entries_[entries_.size() - kMost].finished);
}

std::uint64_t Watch::first_unfinished() const {
  const std::lock_guard lock(mutex_);
  for (const Entry& entry : entries_) {
    if (ending_) return entry.posting.sequence;
    try {
      if (!cuda::reached(*entry.finished)) return entry.posting.sequence;
    } catch (const std::exception&) {  // nobody knows what a lost device has done
      return entry.posting.sequence;
    }
  }
  return end_;
}

void Watch::end() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = given_up_ = true;
  }
  changed_.notify_all();
}

void Watch::drain() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return entries_.empty() || given_up_; });
}

bool Watch::is_done(Entry& oldest, std::string* trouble) try {
  if (!std::exchange(used_, true)) cuda::use(device_);
  if (cuda::reached(*oldest.finished)) return true;
  const Clock::time_point now = Clock::now();
  if (oldest.begun == Clock::time_point{} && cuda::reached(*oldest.posting.written))
    oldest.begun = now;
  const bool begun = oldest.begun != Clock::time_point{};
  *trouble = rules_.trouble(oldest.posting, begun ? now - oldest.begun : Clock::duration(0));
  return false;
} catch (const std::exception& error) {
  *trouble = rules_.lost(oldest.posting, error.what());
  return false;
}

void Watch::give_up(std::unique_lock<std::mutex>& lock, const std::string& text) {
  ending_ = true;  // from here on marks are reached by what was not done
  lock.unlock();
  try {
    if (!std::exchange(used_, true)) cuda::use(device_);  // an abort is made on it
  } catch (const std::exception&) {
    // The device is lost, which whoever waits for it is told.
  }
  rules_.give_up(text);
  lock.lock();
  given_up_ = true;
  changed_.notify_all();
}

void Watch::run() {
  std::unique_lock lock(mutex_);
  const auto ended = [this] { return stop_ || given_up_; };
  while (!ended()) {
    std::string text;
    if (entries_.empty()) {
      if (changed_.wait_for(lock, kIdle, [&] { return ended() || !entries_.empty(); })) continue;
      lock.unlock();
      text = rules_.idle_trouble();
      lock.lock();
      if (!text.empty() && !ended()) give_up(lock, text);
      continue;
    }
    Entry& oldest = entries_.front();  // others are added behind it meanwhile
    lock.unlock();
    const bool done = is_done(oldest, &text);
    lock.lock();
    if (given_up_) continue;
    if (done) {
      entries_.pop_front();
      if (entries_.empty()) changed_.notify_all();
    } else if (!text.empty()) {
      give_up(lock, text);
    } else {
      changed_.wait_for(lock, kInterval, ended);
    }
  }
}

}  // namespace sg::dist
