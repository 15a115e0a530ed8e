// The report: what the formula predicts beside what the ledger measured, of every rank.
#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/cuda/cuda.h"
#include "core/exact_sum.h"
#include "dist/arrows.h"
#include "dist/engine.h"

namespace sg::dist {
namespace {

std::string megabytes(std::int64_t bytes) {
  return bytes < 100'000 ? fmt::format("{} B", bytes)
                         : fmt::format("{:.3f} MB", static_cast<double>(bytes) * 1e-6);
}

constexpr bool is_exact(Kind kind) {
  return kind == Kind::parameters || kind == Kind::gradients || kind == Kind::optimizer;
}
constexpr bool is_predicted(Kind kind) { return is_exact(kind) || kind == Kind::gathered; }

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

std::size_t Report::Flow::odd_rank() const {
  for (std::size_t r = 0; r < measured.size(); ++r)
    if (!matches(r)) return r;
  return 0;
}

Traffic Report::Flow::shown() const { return measured.empty() ? Traffic{} : measured[odd_rank()]; }

bool Report::Flow::matches() const {
  for (std::size_t r = 0; r < measured.size(); ++r)
    if (!matches(r)) return false;
  return true;
}

bool Report::matches() const {
  for (int k = 0; k < kKinds; ++k) {
    const Bytes& b = bytes[static_cast<std::size_t>(k)];
    if (is_exact(static_cast<Kind>(k)) && b.predicted != b.measured) return false;
    if (static_cast<Kind>(k) == Kind::gathered)
      for (std::size_t r = 0; r < b.measured.size(); ++r)
        if (b.measured[r] > b.predicted[r]) return false;
  }
  return steps == 0 || std::all_of(traffic.begin(), traffic.end(),
                                   [](const auto& entry) { return entry.second.matches(); });
}

bool Report::is_alone() const {
  for (int k = 0; k < kKinds; ++k)
    if (is_exact(static_cast<Kind>(k)))
      for (const std::int64_t more : bytes[static_cast<std::size_t>(k)].elsewhere)
        if (more != 0) return false;
  return true;
}

std::string Report::text() const {
  std::string out = fmt::format(
      "{} on {} rank{}, {} micro-batch{} a step, {} parameters in {} units\n", plan, ranks,
      ranks == 1 ? "" : "s", accumulate, accumulate == 1 ? "" : "es", parameters, units);
  out += fmt::format("  {:<28} {:>14} {:>14}\n", "bytes a rank, peak", "predicted", "measured");
  for (int k = 0; k < kKinds; ++k) {
    const Kind kind = static_cast<Kind>(k);
    const Bytes& b = bytes[static_cast<std::size_t>(k)];
    if (b.measured.empty()) continue;
    const std::int64_t most = *std::max_element(b.measured.begin(), b.measured.end());
    const bool bound = kind == Kind::gathered;
    const bool ok = bound ? most <= b.predicted[0] : !is_exact(kind) || b.predicted == b.measured;
    out += fmt::format("  {:<28} {:>14} {:>14}{}\n", name_of(kind),
                       is_exact(kind) ? megabytes(b.predicted[0])
                       : bound        ? "<= " + megabytes(b.predicted[0])
                                      : std::string("-"),
                       megabytes(most), ok ? "" : "  DIFFERS");
    std::int64_t more = 0;
    for (const std::int64_t of_a_rank : b.elsewhere) more = std::max(more, of_a_rank);
    if (is_exact(kind) && more != 0)
      out += fmt::format("    {:<41} {:>14}\n", "outside of this engine", megabytes(more));
  }
  if (card) {
    out += fmt::format("  {:<43} {:>14}\n", fmt::format("in use on {}, now", card->name),
                       megabytes(card->used));
    const auto part = [&](std::string_view what, std::int64_t bytes) {
      out += fmt::format("    {:<41} {:>14}\n", what, megabytes(bytes));
    };
    part("context, other processes, at the start", card->before);
    part(fmt::format("ledger of {} rank{}", card->ranks, card->ranks == 1 ? "" : "s"),
         card->ledger);
    part("cuBLAS workspaces", card->workspaces);
    part("rounding: what no ledger has", card->rounding);
    part("CUDA graphs: tensors of captured steps", card->graphs);
    part("pool slack: freed, kept for later", card->slack);
    part("since the start: kernels, NCCL, others", card->since);
  }
  out += fmt::format("  {:<28} {:>14} {:>14}\n", "sent a rank and step", "predicted", "measured");
  for (const auto& [name, flow] : traffic) {
    const Traffic sent = flow.shown();
    out += fmt::format("  {:<28} {:>14} {:>14}", fmt::format("{} ({} calls)", name, sent.calls),
                       megabytes(flow.predicted.bytes), megabytes(sent.bytes));
    if (steps != 0 && !flow.matches()) {
      const std::size_t r = flow.odd_rank();
      out += fmt::format("  DIFFERS on rank {}{}", r, flow.even[r] ? "" : ", not in every step");
    }
    out += '\n';
  }
  return out;
}

}  // namespace sg::dist
