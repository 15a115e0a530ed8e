// The arrows between the table's cells: the only file whose code calls collectives. Every algorithm
// is direct exchange summed in rank order (0 + 1 + 2 + ...), so that the bits depend neither on the
// transport nor on who waits for whom.
//
//   shard -> full      all-gather
//   partial -> shard   reduce-scatter
//   partial -> full    those two in turn, in place
//   full -> shard      a slice, nothing moves
#pragma once

#include <memory>
#include <span>

#include "core/tensor.h"
#include "dist/comm/comm.h"

namespace sg::dist {

/// `full` (padded elements), filled from every rank's `shard` (padded / N), which may be this
/// rank's slice of `full` itself (in place). Bytes sent: (N - 1) x the shard's.
Ready<Tensor> start_all_gather(Comm& comm, const UnitLabel& unit, const Tensor& shard,
                               const Tensor& full);

/// shard = [shard +] partial_0 + partial_1 + ... of this rank's slice; `partial` is padded, `shard`
/// may be this rank's slice of it. With `fold` the sum starts from what `shard` holds. Bytes sent:
/// (N - 1) x the shard's.
Ready<Tensor> start_reduce_scatter(Comm& comm, const UnitLabel& unit, const Tensor& partial,
                                   const Tensor& shard, bool fold);

/// This rank's slice of a flat unit; no bytes move.
Tensor shard_of(const Tensor& full, int rank, int ranks);

/// Every rank's `mine` in rank order; a few words of control traffic, or of inspection.
std::vector<std::uint64_t> exchange(Comm& comm, std::string_view name,
                                    std::span<const std::uint64_t> mine);

}  // namespace sg::dist
