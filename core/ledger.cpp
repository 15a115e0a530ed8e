#include "core/ledger.h"

#include "core/check.h"

namespace sg {
namespace {

constexpr std::string_view kKindNames[kKinds] = {"parameters", "gradients", "optimizer",
                                                 "gathered",   "buffers",   "activations"};
constexpr std::string_view kPhaseNames[3] = {"training", "evaluation", "inspection"};

}  // namespace

std::string_view name_of(Kind kind) { return kKindNames[static_cast<int>(kind)]; }
std::string_view name_of(Phase phase) { return kPhaseNames[static_cast<int>(phase)]; }

std::int64_t Ledger::Counter::add(std::int64_t bytes) {
  const std::int64_t now = live.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  std::int64_t top = peak.load(std::memory_order_relaxed);
  while (now > top && !peak.compare_exchange_weak(top, now, std::memory_order_relaxed)) {
  }
  return now;
}

void Ledger::book(Kind kind, Tier tier, std::int64_t bytes) {
  const int k = static_cast<int>(kind), t = static_cast<int>(tier);
  const std::int64_t limit = limit_.load(std::memory_order_relaxed);
  if (bytes > 0 && limit > 0 && tier == Tier::device) {
    const std::int64_t live = totals_[t].live.load(std::memory_order_relaxed);
    SG_CHECK(live + bytes <= limit,
             "[ledger] {} bytes of {} do not fit: {} of the rank's limit of {} bytes are in use; "
             "raise the limit, shard more (zero3) or use smaller micro-batches",
             bytes, name_of(kind), live, limit);
  }
  kinds_[k][t].add(bytes);
  totals_[t].add(bytes);
}

std::int64_t Ledger::live(Kind kind, Tier tier) const {
  return kinds_[static_cast<int>(kind)][static_cast<int>(tier)].live.load();
}

std::int64_t Ledger::peak(Kind kind, Tier tier) const {
  return kinds_[static_cast<int>(kind)][static_cast<int>(tier)].peak.load();
}

std::int64_t Ledger::live_total(Tier tier) const {
  return totals_[static_cast<int>(tier)].live.load();
}

std::int64_t Ledger::peak_total(Tier tier) const {
  return totals_[static_cast<int>(tier)].peak.load();
}

void Ledger::reset_peaks() {
  for (auto& tiers : kinds_)
    for (Counter& c : tiers) c.peak.store(c.live.load());
  for (Counter& c : totals_) c.peak.store(c.live.load());
}

void Ledger::book_traffic(Phase phase, std::string_view collective, std::int64_t bytes) {
  std::lock_guard lock(mutex_);
  auto& table = traffic_[static_cast<int>(phase)];
  auto it = table.find(collective);
  if (it == table.end()) it = table.emplace(std::string(collective), Traffic{}).first;
  it->second.calls += 1;
  it->second.bytes += bytes;
}

Traffic Ledger::traffic(Phase phase, std::string_view collective) const {
  std::lock_guard lock(mutex_);
  const auto& table = traffic_[static_cast<int>(phase)];
  const auto it = table.find(collective);
  return it == table.end() ? Traffic{} : it->second;
}

std::map<std::string, Traffic, std::less<>> Ledger::traffic(Phase phase) const {
  std::lock_guard lock(mutex_);
  return traffic_[static_cast<int>(phase)];
}

void Ledger::reset_traffic() {
  std::lock_guard lock(mutex_);
  for (auto& table : traffic_) table.clear();
}

}  // namespace sg
