// Collectives between GPUs, one rank a GPU, which no transport carries: work that is queued on each
// rank's communication lane and done when all ranks' lanes have come to it. Comm hands postings of
// memory on a GPU to it, if it has one; everything else goes by the transport.
#pragma once

#include <cstdint>
#include <vector>

#include "dist/comm/transport.h"

namespace sg::dist {

class DeviceGroup {
 public:
  /// Gives up what is not done, unless close() came before.
  virtual ~DeviceGroup() = default;

  // On the rank's own thread, in the same order on all ranks. The lane has come to `mine.written`.

  /// Every rank's bytes, in rank order, to `out`; this rank's may be in their place already.
  virtual void gather(cuda::Context& context, const Posting& mine, void* out) = 0;
  /// Spans whose sum, in this order, is that of what all ranks have for this one. They are valid
  /// for work that is queued on the lane before the next collective is. A group that sums by itself
  /// gives one, at `room` unless that is null; `room` may be this rank's place in what is posted.
  virtual std::vector<const void*> terms(cuda::Context& context, const Posting& mine,
                                         void* room) = 0;
  /// All of its work is queued; the lane has done it at the mark.
  virtual void queued(const Posting& mine, const MarkPtr& finished) = 0;

  /// Throws what the group was given up for, if it was: nothing on the GPU counts any more, as
  /// lanes that waited went on without their peers.
  virtual void check() const = 0;
  /// Collectives of lower numbers are done.
  virtual std::uint64_t first_unfinished() const = 0;
  /// All that was queued lies before what the compute lane does next: scratch is given back.
  virtual void trim() = 0;
  /// Waits until all that this rank has queued is done.
  virtual void drain() = 0;
  /// After drain(): waits for the other ranks to come to this, too, and ends the group.
  virtual void close() = 0;
};

}  // namespace sg::dist
