// Ends waits on Gloo's buffers: when something happened that may concern them, and when they last
// longer than the deadline. Gloo's own timeout would break every connection of the rank.
#pragma once

#include <gloo/transport/unbound_buffer.h>

#include <chrono>
#include <condition_variable>
#include <list>
#include <mutex>
#include <thread>

namespace sg::dist {

class Watchdog {
 public:
  using Clock = std::chrono::steady_clock;
  using Buffer = ::gloo::transport::UnboundBuffer;

  /// `deadline` of 0: none.
  explicit Watchdog(std::chrono::milliseconds deadline);
  ~Watchdog();
  /// Every wait under way returns false once, and looks around.
  void interrupt();

  /// A wait from here to the end of the scope.
  class Watch {
   public:
    Watch(Watchdog& dog, Buffer& buffer);
    ~Watch();
    bool expired() const;

   private:
    friend class Watchdog;
    Watchdog& dog_;
    Buffer& buffer_;
    const Clock::time_point start_ = Clock::now();
    bool expired_ = false;
    std::list<Watch*>::iterator place_;
  };

 private:
  void run();
  static void wake(Watch& watch);

  const std::chrono::milliseconds deadline_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::list<Watch*> watches_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace sg::dist
