// A stream of work in order, apart from the thread that hands it out. On the CPU it is a thread
// with a queue.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "core/rank.h"
#include "core/ready.h"

namespace sg {

class Stream {
 public:
  /// Work runs under a rank of its own, like `owner` but with one compute thread; it must allocate
  /// no tensors, since a rank allocates and frees on its own thread only.
  explicit Stream(const Rank& owner);
  /// Finishes what was enqueued.
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  /// Runs `work` after everything enqueued before it. The event's wait() throws what `work` throws.
  std::shared_ptr<Event> enqueue(std::function<void()> work);

 private:
  class Task;
  void run();

  Rank rank_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Task>> queue_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace sg
