#include "dist/dry_run.h"

#include <algorithm>

namespace sg::dist {
namespace {

// Replaces every parameter's value by a Source whose storages have no bytes; puts the values back
// at the end.
class ParametersOnMeta {
 public:
  ParametersOnMeta(std::vector<std::unique_ptr<Unit>>& units,
                   const std::vector<std::shared_ptr<ShardedSource>>& sources) {
    for (auto& unit : units) {
      for (Segment& s : unit->segments) {
        VarImpl& v = s.parameter().var().impl();
        saved_.push_back({&v, v.tensor, v.source, v.offset});
        v.tensor = {};
        v.source = sources[static_cast<std::size_t>(unit->index)];
        v.offset = s.offset;
      }
    }
  }
  ~ParametersOnMeta() {
    for (Entry& e : saved_) {
      e.var->tensor = std::move(e.tensor);
      e.var->source = std::move(e.source);
      e.var->offset = e.offset;
    }
  }

 private:
  struct Entry {
    VarImpl* var;
    Tensor tensor;
    std::shared_ptr<Source> source;
    std::int64_t offset;
  };
  std::vector<Entry> saved_;
};

// Stops recording also if the forward throws.
struct Recording {
  Recording(Prefetcher& prefetcher, GradReducer& reducer)
      : prefetcher_(prefetcher), reducer_(reducer) {}
  ~Recording() {
    prefetcher_.drop();
    prefetcher_.record(nullptr);
    reducer_.record(nullptr);
    reducer_.stop();
  }
  Prefetcher& prefetcher_;
  GradReducer& reducer_;
};

}  // namespace

std::vector<UnitReads> DryRun::reads(std::size_t units) const {
  std::vector<UnitReads> reads(units, {0, 0});
  for (const int unit : forward) ++reads[static_cast<std::size_t>(unit)].forward;
  for (const int unit : backward) ++reads[static_cast<std::size_t>(unit)].backward;
  return reads;
}

std::vector<int> DryRun::use_order() const {
  std::vector<int> order = forward;
  order.insert(order.end(), backward.begin(), backward.end());
  return order;
}

DryRun run_dry(const std::function<Var(std::span<const Var>)>& fn, std::span<const Var> inputs,
               std::vector<std::unique_ptr<Unit>>& units, Prefetcher& prefetcher,
               GradReducer& reducer, const std::vector<std::shared_ptr<ShardedSource>>& sources) {
  Rank& rank = current_rank();
  DryRun dry;
  // Bookings of the dry run are its own affair: they must not appear in the rank's ledger.
  Scoped memory(rank.memory, std::make_shared<Memory>());
  Scoped account(rank.account, nullptr);
  Scoped device(rank.device, kMeta);
  Scoped state(rank.state, rank.state);
  const ParametersOnMeta parameters(units, sources);
  const Recording recording(prefetcher, reducer);
  prefetcher.drop();
  reducer.start(0, true);

  std::vector<Var> on_meta;
  for (const Var& input : inputs)
    on_meta.emplace_back(Tensor::empty(input.shape(), input.dtype(), kMeta), input.requires_grad());
  prefetcher.record(&dry.forward);
  const Var output = fn(on_meta);
  if (output.requires_grad()) {
    prefetcher.drop();  // the end of forward ends a stretch
    prefetcher.record(&dry.backward);
    reducer.record(&dry.finals);
    output.backward(Tensor::empty(output.shape(), output.dtype(), kMeta));
  }
  for (const auto& unit : units) {
    if (!unit->trainable) continue;
    const bool final =
        std::find(dry.finals.begin(), dry.finals.end(), unit->index) != dry.finals.end();
    if (!final) dry.finals.push_back(unit->index);  // not, or not wholly, reached: zeros at the end
  }
  return dry;
}

}  // namespace sg::dist
