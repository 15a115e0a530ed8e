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
    /// Why, while nothing is queued, nothing ever will be; "" while it may.
    std::function<std::string()> idle_trouble;
    /// The text for a GPU that cannot be asked any more, with what it said.
    std::function<std::string(const Posting&, const std::string& error)> lost;
    std::function<void(const std::string&)> give_up;  ///< with one of those texts; once
  };
  /// Collectives that may be queued and not done. Neither NCCL nor the driver must come to block
  /// in a call for want of room in their queues: what it waits for could then not be given up. A
  /// driver's queue takes about a thousand pieces of work, a collective is half a dozen.
  static constexpr std::size_t kMost = 32;

  /// `device`: of the marks. The rules are asked from here on.
  Watch(Device device, Rules rules);
  ~Watch() { stop(); }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  /// In the order of the lane, which has done it at the mark.
  void add(const Posting& posting, const MarkPtr& finished);
  /// Whether less than kMost are queued. Errors: the device is lost.
  bool has_room() const;
  /// Collectives of lower numbers are done.
  std::uint64_t first_unfinished() const;
  /// They are given up, by somebody else: what their marks say from here on does not count.
  void end();
  /// Returns when all are done, or were given up.
  void drain();
  /// The rules are not asked any more when this returns.
  void stop();

 private:
  struct Entry {
    Posting posting;
    MarkPtr finished;
    Clock::time_point begun = {};  // zero: something else holds it up
  };
  void run();
  void give_up(std::unique_lock<std::mutex>& lock, const std::string& text);
  // Else what it says is wrong with it, if something is.
  bool is_done(Entry& oldest, std::string* trouble);

  const Device device_;
  const Rules rules_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Entry> entries_;  // an entry stays where it is until run() removes it
  std::uint64_t end_ = 0;      // the number after the last that was added
  bool used_ = false;          // the device, which a group without collectives need not touch
  bool ending_ = false, given_up_ = false, stop_ = false;
  std::thread thread_;
};

}  // namespace sg::dist
