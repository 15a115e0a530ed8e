#include "dist/formula.h"

#include <algorithm>

namespace sg::dist {
namespace {

// The largest sum of `window` units adjacent in the order of use: what can be gathered at once. A
// unit that comes twice in a row (the last of the forward is the first of the backward) is gathered
// once; one that comes again after another may be gathered anew while an op still holds it.
std::int64_t gathered_bound(const std::vector<const UnitLayout*>& units,
                            const std::vector<int>& order, std::size_t window) {
  std::int64_t bound = 0;
  if (order.empty()) {  // not known yet: whichever are the largest
    std::vector<std::int64_t> sizes;
    for (const UnitLayout* unit : units) sizes.push_back(unit->bytes(Layout::full, 1));
    std::sort(sizes.rbegin(), sizes.rend());
    for (std::size_t i = 0; i < std::min(window, sizes.size()); ++i) bound += sizes[i];
  }
  for (std::size_t i = 0; i < order.size(); ++i) {
    std::int64_t sum = 0;
    for (std::size_t k = i; k < std::min(order.size(), i + window); ++k)
      if (k == i || order[k] != order[k - 1])
        sum += units[static_cast<std::size_t>(order[k])]->bytes(Layout::full, 1);
    bound = std::max(bound, sum);
  }
  return bound;
}

}  // namespace

Prediction predict(const Plan& plan, const std::vector<const UnitLayout*>& units,
                   const std::vector<UnitReads>& reads, const std::vector<int>& use_order,
                   int ranks, int accumulate, int state_slots, bool prefetch,
                   const std::vector<std::int64_t>& control_words) {
  Prediction p;
  auto& bytes = p.bytes;
  const auto kind = [&](Kind k) -> std::int64_t& { return bytes[static_cast<std::size_t>(k)]; };
  Traffic gather, scatter, control;
  const auto book = [&](Traffic& flow, std::int64_t shard_bytes, std::int64_t calls) {
    flow.calls += calls;
    flow.bytes += calls * (ranks - 1) * shard_bytes;
  };
  for (std::size_t u = 0; u < units.size(); ++u) {
    const UnitLayout& unit = *units[u];
    const std::int64_t param_shard = unit.bytes(Layout::shard, ranks);
    const std::int64_t grad_shard = unit.grad_bytes(Layout::shard, ranks);
    kind(Kind::parameters) += unit.bytes(plan.param.layout, ranks);
    if (plan.param.layout == Layout::shard)
      book(gather, param_shard, accumulate * (reads[u].forward + reads[u].backward));
    if (!unit.trainable) continue;
    kind(Kind::gradients) += unit.grad_bytes(plan.grad.layout, ranks);
    kind(Kind::optimizer) += state_slots * unit.grad_bytes(plan.state.layout, ranks);
    // grad -> reduced: one arrow a micro-batch where gradients rest summed, one a step where they
    // rest unsummed.
    book(scatter, grad_shard, plan.grad.layout == Layout::partial ? 1 : accumulate);
    if (plan.reduced.layout == Layout::full) book(gather, grad_shard, 1);
    // state -> param: what the owner updated goes to everybody who keeps it whole.
    if (plan.state.layout == Layout::shard && plan.param.layout == Layout::full)
      book(gather, param_shard, 1);
  }
  if (plan.param.layout == Layout::shard)
    kind(Kind::gathered) = gathered_bound(units, use_order, prefetch ? 3 : 2);
  for (const std::int64_t words : control_words) {
    control.calls += 1;
    control.bytes += (ranks - 1) * words * 8;
  }
  if (ranks == 1) gather = scatter = control = {};  // nothing to send to nobody
  p.traffic = {{"all_gather", gather}, {"reduce_scatter", scatter}, {"control", control}};
  return p;
}

}  // namespace sg::dist
