// What one micro-batch reads and when gradients become final, found by running it on `meta`:
// shapes, no bytes, no traffic. The formula, the prefetch order and the order of reductions come
// from it, never from the traffic itself.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "dist/formula.h"
#include "dist/grad_sink.h"
#include "dist/prefetch.h"
#include "dist/sharded_source.h"
#include "dist/unit.h"

namespace sg::dist {

struct DryRun {
  std::vector<int> forward, backward;  ///< units, one entry a stretch
  std::vector<int> finals;  ///< trainable units in the order in which their gradients are complete

  std::vector<UnitReads> reads(std::size_t units) const;
  std::vector<int> use_order() const;
};

/// Runs fn(inputs) and its backward on `meta`. Parameters are taken off the units for that time.
/// `sources` has one entry a unit. Errors of the forward itself are thrown as they are.
DryRun run_dry(const std::function<Var(std::span<const Var>)>& fn, std::span<const Var> inputs,
               std::vector<std::unique_ptr<Unit>>& units, Prefetcher& prefetcher,
               GradReducer& reducer, const std::vector<std::shared_ptr<ShardedSource>>& sources);

}  // namespace sg::dist
