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
  using Clock = std::chrono::steady_clock;
  /// What it asks and tells, on its own thread.
  struct Rules {
    /// Why the oldest collective that is not done never will be; "" while it may. `waited`: since
    /// nothing but its peers can hold it up, as what it posts is written and those before it are
    /// done; 0 until then.
    std::function<std::string(const Posting&, Clock::duration waited)> trouble;
    std::function<void(const std::string&)> give_up;  ///< with that text; once
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
  struct Entry {
    Posting posting;
    MarkPtr finished;
    Clock::time_point begun = {};  // zero: something else holds it up
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
