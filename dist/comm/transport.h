// Transport: how a rank reads what its peers have posted. Algorithms (dist/arrows) are written once
// above it.
//
// A posting is a span of this rank's memory, cut so that peer p reads `bytes` at data + p * stride:
// stride 0 gives every peer the same bytes (all-gather), stride = shard gives each its own part
// (reduce-scatter). Postings are numbered; all ranks post the same sequence. Posted memory must not
// change until wait_released() returns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/cuda/lanes.h"
#include "core/dtype.h"

namespace sg::dist {

/// The unit that a collective serves: its index, which ranks compare, and its name, for people.
struct UnitLabel {
  static constexpr std::size_t kName = 32;
  int index = -1;  ///< -1 for none
  char name[kName] = {};

  UnitLabel() = default;
  UnitLabel(int unit, std::string_view called = {}) : index(unit) { called.copy(name, kName - 1); }
};

using MarkPtr = std::shared_ptr<cuda::Mark>;

/// What travels with every collective, so that ranks that diverge find out.
struct Posting {
  const char* op = "";
  UnitLabel unit = {};
  DType dtype = DType::f32;
  std::int64_t count = 0;      ///< elements that one peer reads
  std::uint64_t sequence = 0;  ///< among all collectives of the group
  std::uint64_t ticket = 0;    ///< among those that the transport carries
  std::uint64_t unseen = 0;    ///< hash of those before it that it did not carry (between GPUs)
  const char* data = nullptr;
  std::int64_t stride = 0;    ///< bytes
  std::int64_t bytes = 0;     ///< that one peer reads
  Device device = kCpu;       ///< of the bytes
  MarkPtr written = nullptr;  ///< when `data` is there; null on the CPU, where it is
};

/// "reduce_scatter of unit 1, fc1 (64 x f32, collective 41)".
std::string describe(const Posting& posting);
/// An error that names both unless they are the same op, unit, dtype and count, and came after the
/// same collectives between GPUs.
void check_same(const Posting& mine, int rank, const Posting& theirs, int peer);

class Transport {
 public:
  virtual ~Transport() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Postings are told apart by their ticket, and called by their sequence in error texts.

  /// Postings that are remembered: how far a rank may be ahead of the slowest reader.
  static constexpr std::uint64_t kDepth = 256;
  /// Makes a span readable for the peers. Waits until they have finished `ticket - kDepth`,
  /// for nothing else.
  virtual void post(const Posting& posting) = 0;
  /// Waits until `peer` has posted `mine.ticket`, checks it against `mine`, and returns the piece()
  /// bytes at `begin` of those that it has for this rank; `written` becomes the posting's. From
  /// each peer pieces are taken in order, and the last but one may be gone. Errors: deadline
  /// passed, peer failed, another collective found (both are named).
  virtual const char* view(const Posting& mine, int peer, std::int64_t begin,
                           MarkPtr* written = nullptr) = 0;
  /// Bytes that are viewed at a time, a multiple of 64, but for the last: what comes over a wire is
  /// used while it is in a cache and more is on its way.
  virtual std::int64_t piece(const Posting& posting) const = 0;
  /// This rank has read all that it needs of this collective, or will have at the mark.
  virtual void finish(const Posting& mine, const MarkPtr& read = nullptr) = 0;
  /// Waits until every peer has finished reading what this rank posted; `read` becomes the marks at
  /// which they will have.
  virtual void wait_released(const Posting& mine, std::vector<MarkPtr>* read = nullptr) = 0;
  /// Whether memory of `device` can be posted.
  virtual bool carries(Device device) const { return !device.is_cuda(); }
  /// This rank will post no more and has finished what it posted: a wait for more from it is an
  /// error at once.
  virtual void leave() = 0;
  /// Tells every peer that this rank failed; their waits throw, naming the first cause.
  virtual void poison(const std::string& cause) = 0;

  // For collectives that the transport does not carry, which wait for the same ranks. On any
  // thread.

  /// Why the group is over, "rank 2: [loader] ..."; empty while it is not.
  virtual std::string failure() const = 0;
  /// A peer that has left; -1 while all are there.
  virtual int gone() const = 0;
  /// A peer that has not; -1 when all have.
  virtual int at_work() const = 0;
  /// This rank has begun a collective that the transport does not carry.
  virtual void entered(const Posting& posting) = 0;
  /// Where the others are as far as this rank knows: "; rank 1 last entered all_gather of ...".
  virtual std::string whereabouts() const = 0;
};

}  // namespace sg::dist
