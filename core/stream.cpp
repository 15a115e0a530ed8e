#include "core/stream.h"

#include <exception>
#include <utility>

namespace sg {

class Stream::Task final : public Event {
 public:
  explicit Task(std::function<void()> work) : work_(std::move(work)) {}

  void run() {
    try {
      work_();
    } catch (...) {
      error_ = std::current_exception();
    }
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
    }
    finished_.notify_all();
  }

  void wait() override {
    {
      std::unique_lock lock(mutex_);
      finished_.wait(lock, [&] { return done_; });
    }
    work_ = nullptr;  // what it held is freed on the thread that waits, not on the stream's
    if (error_ != nullptr) std::rethrow_exception(error_);
  }

 private:
  std::function<void()> work_;
  std::mutex mutex_;
  std::condition_variable finished_;
  bool done_ = false;
  std::exception_ptr error_;
};

Stream::Stream(const Rank& owner)
    : rank_(owner.index, owner.world_size, 1, owner.seed), thread_([this] { run(); }) {}

Stream::~Stream() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

std::shared_ptr<Event> Stream::enqueue(std::function<void()> work) {
  auto task = std::make_shared<Task>(std::move(work));
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(task);
  }
  changed_.notify_all();
  return task;
}

void Stream::run() {
  const RankScope scope(rank_);
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || !queue_.empty(); });
    if (queue_.empty()) return;
    const std::shared_ptr<Task> task = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    task->run();
    lock.lock();
  }
}

}  // namespace sg
