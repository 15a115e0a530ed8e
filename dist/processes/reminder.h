// Says every so often what is waited for, so that nobody watches a silent job.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace sg::dist {

/// Calls remind(time waited) on a thread of its own at each multiple of the interval, until it is
/// destroyed.
class Reminder {
 public:
  using milliseconds = std::chrono::milliseconds;
  Reminder(milliseconds interval, std::function<void(milliseconds waited)> remind);
  ~Reminder();
  Reminder(const Reminder&) = delete;
  Reminder& operator=(const Reminder&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  std::thread thread_;
};

}  // namespace sg::dist
