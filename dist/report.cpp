// The report: what the formula predicts beside what the ledgers of all ranks have measured.
#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/cuda/cuda.h"
#include "core/exact_sum.h"
#include "dist/arrows.h"
#include "dist/engine.h"

namespace sg::dist {
namespace {

// Collective. All ranks have waited for their GPUs, and nobody allocates there before all have
// looked.
CardReport look_at_card(Comm& comm) {
  const Device device = current_rank().device;
  cuda::synchronize();
  const std::uint64_t here[] = {0};
  exchange(comm, "control", here);
  const cuda::MemoryInfo info = cuda::memory_info(device);
  const std::uint64_t mine[] = {
      static_cast<std::uint64_t>(current_rank().ledger().live_total(Tier::device)),
      static_cast<std::uint64_t>(info.workspace), static_cast<std::uint64_t>(info.before)};
  const std::vector<std::uint64_t> all = exchange(comm, "control", mine);
  CardReport card{.name = name_of(device), .total = info.total, .used = info.total - info.free};
  card.before = info.before;
  if (comm.has_devices()) {  // one rank a GPU
    card.ledger = static_cast<std::int64_t>(mine[0]);
    card.workspaces = info.workspace;
  } else {
    card.ranks = comm.size();
    for (std::size_t r = 0; r < all.size(); r += 3) {
      card.ledger += static_cast<std::int64_t>(all[r]);
      card.workspaces += static_cast<std::int64_t>(all[r + 1]);
      card.before = std::min(card.before, static_cast<std::int64_t>(all[r + 2]));
    }
  }
  card.rounding = info.pool_used - card.ledger - card.workspaces;
  card.slack = info.pool_reserved - info.pool_used;
  card.graphs = info.graphs;
  card.since = card.used - card.before - info.pool_reserved - info.graphs;
  return card;
}

template <class T>
using ByName = std::map<std::string, T, std::less<>>;

// What each rank has sent, on all ranks; by every name that any of them has. Collective.
ByName<std::vector<Traffic>> of_all_ranks(Comm& comm, const ByName<Traffic>& mine) {
  struct Entry {
    char name[48];
    std::int64_t calls, bytes;
  };
  constexpr std::size_t kWords = sizeof(Entry) / sizeof(std::uint64_t);
  const std::uint64_t here[] = {mine.size()};
  const std::vector<std::uint64_t> sizes = exchange(comm, "control", here);
  // As many of each rank as of that with the most names; those without a name are none.
  const std::size_t most = *std::max_element(sizes.begin(), sizes.end());
  std::vector<std::uint64_t> words(most * kWords);
  std::size_t at = 0;
  for (const auto& [name, sum] : mine) {
    Entry entry{.name = {}, .calls = sum.calls, .bytes = sum.bytes};
    SG_CHECK(name.size() < sizeof entry.name, "[report] a collective's name of {} bytes: {}",
             name.size(), name);
    name.copy(entry.name, name.size());
    std::memcpy(&words[at], &entry, sizeof entry);
    at += kWords;
  }
  const std::vector<std::uint64_t> all = exchange(comm, "control", words);
  ByName<std::vector<Traffic>> result;
  for (std::size_t i = 0; i < all.size() / kWords; ++i) {
    Entry entry;
    std::memcpy(&entry, &all[i * kWords], sizeof entry);
    if (entry.name[0] == 0) continue;
    std::vector<Traffic>& ranks = result[entry.name];
    ranks.resize(static_cast<std::size_t>(comm.size()));
    ranks[i / most] = {entry.calls, entry.bytes};
  }
  return result;
}

}  // namespace

Prediction Engine::predict() const {
  std::vector<const UnitLayout*> layouts;
  for (const auto& unit : units_) layouts.push_back(unit.get());
  const std::vector<UnitReads> reads =
      dry_ ? dry_->reads(units_.size()) : std::vector<UnitReads>(units_.size());
  std::vector<int> order;
  if (dry_) order = dry_->use_order();
  std::vector<std::int64_t> control{options_.accumulate + 1 +
                                    (wants_norm() ? ExactSum::kWords : 0)};
  return dist::predict(plan_, layouts, reads, order, comm_.size(), options_.accumulate,
                       optimizer_->state_slots(), options_.prefetch, control);
}

Report Engine::report() {
  loss_.check();
  const Scoped phase(current_rank().phase, Phase::inspection);
  const Prediction predicted = predict();
  Report report;
  report.plan = plan_.name;
  report.ranks = comm_.size();
  report.accumulate = options_.accumulate;
  report.parameters = parameter_count();
  report.units = static_cast<int>(units_.size());
  report.steps = steps_;
  for (int k = 0; k < kKinds; ++k) {
    const std::size_t i = static_cast<std::size_t>(k);
    // What the formula speaks of is the engine's own; the rest is everything that the rank made.
    const Ledger& of = is_predicted(static_cast<Kind>(k)) ? *account_ : current_rank().ledger();
    const std::int64_t peak = of.peak(static_cast<Kind>(k));
    const std::int64_t more = current_rank().ledger().peak(static_cast<Kind>(k)) - peak;
    const std::uint64_t mine[] = {static_cast<std::uint64_t>(peak),
                                  static_cast<std::uint64_t>(more)};
    const std::vector<std::uint64_t> all = exchange(comm_, "control", mine);
    for (std::size_t r = 0; r < all.size(); r += 2) {
      report.bytes[i].measured.push_back(static_cast<std::int64_t>(all[r]));
      report.bytes[i].elsewhere.push_back(static_cast<std::int64_t>(all[r + 1]));
      report.bytes[i].predicted.push_back(predicted.bytes[i]);
    }
  }
  if (current_rank().device.is_cuda()) report.card = look_at_card(comm_);
  ByName<Traffic> mine = account_->traffic(Phase::training);
  for (const auto& [name, flow] : predicted.traffic) mine.try_emplace(name);
  const std::int64_t steps = std::max<std::int64_t>(steps_, 1);
  for (const auto& [name, sums] : of_all_ranks(comm_, mine)) {
    Report::Flow& flow = report.traffic[name];
    if (const auto it = predicted.traffic.find(name); it != predicted.traffic.end())
      flow.predicted = it->second;
    for (const Traffic& sum : sums) {
      flow.even.push_back(sum.calls % steps == 0 && sum.bytes % steps == 0);
      flow.measured.push_back({sum.calls / steps, sum.bytes / steps});
    }
  }
  return report;
}

}  // namespace sg::dist
