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

void Rise::add(Kind kind, std::int64_t bytes) {
  const std::lock_guard lock(mutex_);
  kinds_[static_cast<std::size_t>(kind)].add(bytes);
  total_.add(bytes);
}

std::int64_t Rise::of(Kind kind) const {
  const std::lock_guard lock(mutex_);
  return kinds_[static_cast<std::size_t>(kind)].top;
}

std::int64_t Rise::total() const {
  const std::lock_guard lock(mutex_);
  return total_.top;
}

void Ledger::Counter::add(std::int64_t bytes) {
  rise_to(live.fetch_add(bytes, std::memory_order_relaxed) + bytes);
}

void Ledger::Counter::rise_to(std::int64_t bytes) {
  std::int64_t top = peak.load(std::memory_order_relaxed);
  while (bytes > top && !peak.compare_exchange_weak(top, bytes, std::memory_order_relaxed)) {
  }
}

void Ledger::check_limit(std::string_view what, std::int64_t bytes) const {
  const std::int64_t limit = limit_.load(std::memory_order_relaxed);
  if (limit == 0 || bytes <= 0) return;
  const std::int64_t live = live_total();
  SG_CHECK(live + bytes <= limit,
           "[ledger] {} bytes of {} do not fit: {} of the rank's limit of {} bytes are in use; "
           "raise the limit, shard more (zero3) or use smaller micro-batches",
           bytes, what, live, limit);
}

void Ledger::book(Kind kind, Tier tier, std::int64_t bytes) {
  const int k = static_cast<int>(kind), t = static_cast<int>(tier);
  if (tier == Tier::device) check_limit(name_of(kind), bytes);
  kinds_[k][t].add(bytes);
  totals_[t].add(bytes);
}

void Ledger::book(const Rise& rise) {
  constexpr int kDevice = static_cast<int>(Tier::device);
  check_limit("a replayed step", rise.total());
  for (int k = 0; k < kKinds; ++k) {
    Counter& counter = kinds_[k][kDevice];
    counter.rise_to(counter.live.load() + rise.of(static_cast<Kind>(k)));
  }
  Counter& total = totals_[kDevice];
  total.rise_to(total.live.load() + rise.total());
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
