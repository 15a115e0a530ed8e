// Watches collectives whose end nobody waits for on the CPU: work on a GPU that hangs, because a
// peer never comes to it or has failed, is noticed here.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "dist/comm/transport.h"

namespace sg::dist {

class Watch {
 public:
  /// What it asks and tells, on its own thread.
  struct Rules {
    /// Of the oldest collective that is not done, from the moment in which nothing but its peers
    /// can hold it up: what it posts is written, and those before it are done. 0: none.
    std::chrono::milliseconds deadline;
    std::function<std::string(const Posting&)> trouble;  ///< "" while there is none
    std::function<std::string(const Posting&)> too_late;
    std::function<void(const std::string&)> give_up;  ///< with a text of these; once
  };

  /// `device`: of the marks.
  Watch(Device device, Rules rules);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  /// In the order of the lane, which has done it at the mark.
  void add(const Posting& posting, const MarkPtr& finished);
  /// Collectives of lower numbers are done.
  std::uint64_t first_unfinished() const;
  /// Returns when all are done, or were given up.
  void drain();

 private:
  using Clock = std::chrono::steady_clock;
  struct Entry {
    Posting posting;
    MarkPtr finished;
    Clock::time_point begun = {};  // of the deadline; not yet if zero
  };
  void run();
  std::string look(Entry& oldest) const;

  const Device device_;
  const Rules rules_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Entry> entries_;  // an entry stays where it is until run() removes it
  std::uint64_t end_ = 0;      // the number after the last that was added
  bool ending_ = false, given_up_ = false, stop_ = false;
  std::thread thread_;
};

}  // namespace sg::dist
