// The threads transport: N ranks in one process that read each other's memory directly.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "dist/comm/transport.h"

namespace sg::dist {

struct WaitOptions {
  /// A wait longer than this is an error that names whom it waited for; 0 turns it off (for a
  /// debugger).
  std::chrono::milliseconds deadline = std::chrono::minutes(10);
  /// Busy waiting before a thread sleeps. Pays only while all threads have a core (20 us then, 0
  /// otherwise).
  std::chrono::microseconds spin{20};
};

/// The board that the ranks of one group share.
class ThreadWorld {
 public:
  ThreadWorld(int size, WaitOptions options);
  int size() const { return size_; }
  std::unique_ptr<Transport> transport(int rank);
  /// The first failure, as "rank 2: <text>"; empty if there was none.
  std::string cause() const;
  /// Whose it was, -1 if there was none, and its text alone.
  std::pair<int, std::string> first_failure() const;
  void poison(int rank, const std::string& cause);

 private:
  friend class ThreadTransport;
  static constexpr std::uint64_t kRing = Transport::kDepth;

  struct alignas(64) Slot {
    std::atomic<std::uint64_t> posted{0};   // ticket + 1
    std::atomic<std::uint64_t> readers{0};  // finish() calls of peers, over all uses of this slot
    Posting posting;
    std::mutex mutex;
    std::vector<MarkPtr> read;  // on a GPU; each reader leaves its own before it counts itself
  };
  struct alignas(64) Seat {  // one a rank
    std::vector<Slot> slots = std::vector<Slot>(kRing);
    std::atomic<int> asleep{0};  // threads: the rank's own, and its stream's
    std::mutex mutex;
    std::condition_variable wake;
    std::atomic<const char*> waiting_in{
        nullptr};  // the collective it is in, for others' error texts
    std::atomic<std::uint64_t> waiting_at{0};
    std::atomic<bool> left{false};
    mutable std::mutex place_mutex;
    Posting place;  // the last collective that it began beside the board; op "" for none
  };
  void wake_peers(int rank);

  const int size_;
  const WaitOptions options_;
  std::vector<std::unique_ptr<Seat>> seats_;
  std::atomic<bool> poisoned_{false};
  mutable std::mutex mutex_;
  std::string cause_;
  int failed_rank_ = -1;
};

}  // namespace sg::dist
