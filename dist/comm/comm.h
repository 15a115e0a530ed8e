// Comm: this rank's end of a group. It numbers collectives, runs them on an executor and books
// their traffic. A Comm is handed in, never "the world".
#pragma once

#include <array>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/rank.h"
#include "core/stream.h"
#include "dist/comm/transport.h"

namespace sg::dist {

/// Who finishes a collective that was started. `inlined`: the rank's own thread, when it waits for
/// it. `thread`: a comm thread of the rank, which pays only where cores are spare. The bits are the
/// same.
enum class Executor { inlined, thread };

/// A started collective: the posting is out, finishing it moves the bytes. What was posted must not
/// change until wait_readers() returns, and is kept alive until then, whatever becomes of the
/// caller.
class Operation final : public Event {
 public:
  void wait() override;
  void wait_readers() override;
  /// The GPU that it works on, or null. Its work belongs on the communication lane.
  cuda::Context* context() const { return context_; }

 private:
  friend class Comm;
  class Comm* comm_ = nullptr;
  Posting posting_;
  std::function<void(Operation&)> finish_;
  std::shared_ptr<Event> on_stream_;  // null with the inlined executor
  cuda::Context* context_ = nullptr;  // where the posted bytes are on a GPU
  MarkPtr finished_;                  // when its work on the communication lane is done
  bool done_ = false, released_ = false;
  std::exception_ptr error_;
  std::shared_ptr<void> posted_;  // owner of what peers read
  void order_after(const MarkPtr& mark);
};

class Comm {
 public:
  Comm(std::unique_ptr<Transport> transport, Executor executor);
  ~Comm();
  Comm(const Comm&) = delete;
  Comm& operator=(const Comm&) = delete;

  int rank() const { return transport_->rank(); }
  int size() const { return transport_->size(); }
  Executor executor() const { return executor_; }

  /// Posts and returns. `owner` keeps the posted bytes alive, which are on `device`; `finish` reads
  /// the peers' postings by view(); `name` is what the ledger books it as, `sent` the bytes this
  /// rank sends in all. Nothing is posted or booked in a group of one.
  std::shared_ptr<Operation> start(Posting posting, Device device, std::shared_ptr<void> owner,
                                   std::string_view name, std::int64_t sent,
                                   std::function<void(Operation&)> finish);
  /// Inside finish: the bytes that `peer` has for this rank; waits for them. On a GPU the
  /// communication lane does.
  const char* view(const Operation& operation, int peer);
  /// Inside finish: copies them to `to`.
  void read(const Operation& operation, int peer, char* to);
  /// Inside finish: copies this rank's own bytes, by all its threads or on the communication lane.
  void copy(const Operation& operation, void* to, const void* from, std::int64_t bytes);
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
  /// The last collectives (at most `most`, and kHistory), a line each, oldest first: what a rank
  /// was doing when it failed. After stop().
  std::string history(std::size_t most = kHistory) const;
  static constexpr std::size_t kHistory = 256;
  /// Hashes of everything started so far, after each of the last kHistory collectives, oldest
  /// first: equal on all ranks that run the same program. See dist/fingerprint.h.
  std::vector<std::uint64_t> fingerprints() const;
  /// The i-th of those collectives.
  std::string describe_started(std::size_t i) const;

 private:
  friend class Operation;
  static constexpr std::size_t kWindow =
      Transport::kDepth / 2;  // started but unfinished operations
  void finish(Operation& operation);
  void carry_out(Operation& operation);

  std::unique_ptr<Transport> transport_;
  const Executor executor_;
  std::uint64_t next_ = 0;
  std::deque<std::shared_ptr<Operation>> unreleased_;

  // Entry i of the ring is collective s with s % kHistory == i. A view of what was posted is not
  // kept.
  struct Entry {
    Posting posting;
    std::uint64_t fingerprint = 0;  // of all up to this one
    bool finished = false;
  };
  std::array<Entry, kHistory> history_;

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
