// A collective that was started. Who finishes it, and in which order a GPU's lanes come to it.
#pragma once

#include <exception>
#include <functional>
#include <memory>

#include "core/ready.h"
#include "dist/comm/transport.h"

namespace sg::dist {

class Comm;

/// The posting is out, finishing it moves the bytes. What was posted must not change until
/// wait_readers() returns, and is kept alive until then, whatever becomes of the caller.
///
/// On a GPU nobody waits but the lanes: its work, on the communication lane, begins when the
/// compute lane has written what is posted, and what the rank does next on the compute lane comes
/// after it.
class Operation final : public Event {
 public:
  void wait() override;
  void wait_readers() override;
  /// The GPU that it works on, or null. Its work belongs on the communication lane.
  cuda::Context* context() const { return context_; }
  const Posting& posting() const { return posting_; }

 private:
  friend class Comm;
  // Queues or does its work: between the two marks, on a GPU.
  void carry_out();
  // As carry_out(), for whoever waits later: an error is kept.
  void finish();
  void order_after(const MarkPtr& mark);
  // What it holds is freed on the rank's own thread, in the order of its compute lane.
  void let_go();

  Comm* comm_ = nullptr;
  Posting posting_;
  std::function<void(Operation&)> finish_;
  std::shared_ptr<Event> on_stream_;  // of the comm thread; null where there is none
  cuda::Context* context_ = nullptr;  // where the posted bytes are on a GPU
  bool between_gpus_ = false;         // by the device group: it was finished when it was started
  MarkPtr finished_;                  // when its work on the communication lane is done
  bool done_ = false, released_ = false;
  std::exception_ptr error_;
  std::shared_ptr<void> posted_;  // owner of what peers read
};

}  // namespace sg::dist
