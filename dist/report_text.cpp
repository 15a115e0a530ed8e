// What a report says: whether all is as predicted, and the table for people.
#include <algorithm>

#include "dist/formula.h"

namespace sg::dist {
namespace {

std::string megabytes(std::int64_t bytes) {
  return bytes < 100'000 ? fmt::format("{} B", bytes)
                         : fmt::format("{:.3f} MB", static_cast<double>(bytes) * 1e-6);
}

}  // namespace

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
