#include "dist/processes/reminder.h"

#include <utility>

#include "dist/processes/store_io.h"

namespace sg::dist {

Reminder::Reminder(milliseconds interval, std::function<void(milliseconds)> remind)
    : thread_(store::start_quiet_thread([this, interval, remind = std::move(remind)] {
        const auto start = std::chrono::steady_clock::now();
        std::unique_lock lock(mutex_);
        for (milliseconds waited = interval;; waited += interval) {
          if (changed_.wait_until(lock, start + waited, [this] { return done_; })) return;
          lock.unlock();  // standard error may be blocked; the end is not to wait for it longer
          remind(waited);
          lock.lock();
        }
      })) {}

Reminder::~Reminder() {
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

}  // namespace sg::dist
