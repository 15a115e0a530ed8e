// Comm: this rank's end of a group. It numbers collectives, hands them to whoever carries them and
// books their traffic. A Comm is handed in, never "the world".
//
// Two ways lead to the peers. The transport (threads, Gloo) takes every posting of main memory, and
// of a GPU that the ranks share. A device group (NCCL), where there is one, takes postings of
// memory on a GPU: those are queued when they are started, in the order of the rank's program.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/rank.h"
#include "core/stream.h"
#include "dist/comm/device_group.h"
#include "dist/comm/history.h"
#include "dist/comm/operation.h"
#include "dist/comm/transport.h"

namespace sg::dist {

/// Who finishes a collective of the transport that was started. `inlined`: the rank's own thread,
/// when it waits for it. `thread`: a comm thread of the rank, which pays only where cores are
/// spare. The bits are the same.
enum class Executor { inlined, thread };

class Comm {
 public:
  Comm(std::unique_ptr<Transport> transport, Executor executor);
  ~Comm();
  Comm(const Comm&) = delete;
  Comm& operator=(const Comm&) = delete;

  int rank() const { return transport_->rank(); }
  int size() const { return transport_->size(); }
  Executor executor() const { return executor_; }
  /// The way for main memory, and for news of failures.
  Transport& transport() { return *transport_; }
  /// From here on postings of memory on a GPU go by the group; {} ends it.
  void use(std::unique_ptr<DeviceGroup> devices) { devices_ = std::move(devices); }
  bool has_devices() const { return devices_ != nullptr; }

  /// Posts and returns. `owner` keeps the posted bytes alive, which are on `device`; `finish` gets
  /// what the peers posted by gather() or terms(); `name` is what the ledger books it as, `sent`
  /// the bytes this rank sends in all. Nothing is posted or booked in a group of one.
  std::shared_ptr<Operation> start(Posting posting, Device device, std::shared_ptr<void> owner,
                                   std::string_view name, std::int64_t sent,
                                   std::function<void(Operation&)> finish);

  // Inside finish. On a GPU they queue it on the communication lane, else they wait for the peers.

  /// The bytes that each rank has for this one, in rank order, to `out`; this rank's own may be in
  /// their place already.
  void gather(const Operation& operation, void* out);
  /// Spans whose sum, in this order, is that of the piece() bytes at `begin` of what all ranks have
  /// for this one: a span a rank in rank order, or one where the device group sums by itself. That
  /// one is at `room`, unless that is null; `room` may be this rank's place in what it posted.
  /// Pieces are taken in order, and used before the next one is.
  std::vector<const void*> terms(const Operation& operation, std::int64_t begin, void* room);
  /// Bytes that terms() gives at a time, but for the last.
  std::int64_t piece(const Operation& operation) const;
  /// That piece of what `peer` has for this rank, where it lies. Not by a device group.
  const char* view(const Operation& operation, int peer, std::int64_t begin = 0);

  /// Waits until peers have read everything this rank ever posted: its memory may change.
  void quiesce();
  /// Collectives that peers may still read from.
  std::size_t unreleased() const { return unreleased_.size(); }
  /// The end of this rank's program: finishes what it started, then lets peers that wait for more
  /// know.
  void leave();
  /// Ends the comm thread. What this rank posted stays readable until the Comm is gone.
  void stop() { stream_.reset(); }
  void poison(const std::string& cause) { transport_->poison(cause); }

  static constexpr std::size_t kHistory = History::kKept;
  /// The last collectives (at most `most`, and kHistory), a line each, oldest first: what a rank
  /// was doing when it failed. After stop().
  std::string history(std::size_t most = kHistory) const;
  /// Whether this rank has what it wanted of any collective: all ranks have entered that one. After
  /// stop().
  bool any_finished() const;
  /// Hashes of everything started so far, after each of the last kHistory collectives, oldest
  /// first: equal on all ranks that run the same program. See dist/fingerprint.h.
  std::vector<std::uint64_t> fingerprints() const { return history_.fingerprints(); }
  /// The i-th of those collectives.
  std::string describe_started(std::size_t i) const { return history_.describe_kept(i); }

 private:
  friend class Operation;
  class OnGpu;
  static constexpr std::size_t kWindow =
      Transport::kDepth / 2;  // started but unfinished operations
  void begin_on(Operation& operation, Device device);
  void book(std::string_view name, std::int64_t sent) const;
  void post(const std::shared_ptr<Operation>& operation);
  void copy(const Operation& operation, void* to, const void* from, std::int64_t bytes);
  std::uint64_t first_unfinished() const {
    return devices_ != nullptr ? devices_->first_unfinished() : 0;
  }

  // For operations.
  void carried_out(Operation& operation);
  void check_devices() const;
  void wait_released(const Posting& posting, std::vector<MarkPtr>* read) {
    transport_->wait_released(posting, read);
  }

  std::unique_ptr<Transport> transport_;
  std::unique_ptr<DeviceGroup> devices_;  // ends before the transport, which it tells of failures
  const Executor executor_;
  History history_;
  std::deque<std::shared_ptr<Operation>> unreleased_;
  std::shared_ptr<OnGpu> on_gpu_;   // what the rank's GPU asks for its error texts
  std::unique_ptr<Stream> stream_;  // null with the inlined executor
};

/// The group of the rank that this thread runs, set by launch_ranks(); a group of one elsewhere.
Comm& current_comm();
class CommScope {
 public:
  explicit CommScope(Comm& comm);
  ~CommScope();

 private:
  Comm* previous_;
};

}  // namespace sg::dist
