#include "examples/cifar/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "dist/plan.h"
#include "examples/common/progress.h"

namespace sg::cifar {
namespace {

using examples::thousands;

/// What the order of summation depends on: results of one layout must agree to the last bit.
dist::Layout family(const Result& r) {
  if (r.report.ranks == 1 || r.report.accumulate == 1) return dist::Layout::full;
  return dist::find_plan(r.report.plan).grad.layout;
}

/// The first step (from 1) whose losses differ in any bit; 0 if none does.
std::size_t first_difference(const Result& a, const Result& b) {
  const std::size_t steps = std::min(a.steps.size(), b.steps.size());
  for (std::size_t i = 0; i < steps; ++i)
    if (std::bit_cast<std::uint64_t>(a.steps[i].loss) !=
        std::bit_cast<std::uint64_t>(b.steps[i].loss))
      return i + 1;
  return a.steps.size() == b.steps.size() ? 0 : steps + 1;
}

std::int64_t most(const std::vector<std::int64_t>& ranks) {
  return ranks.empty() ? 0 : *std::max_element(ranks.begin(), ranks.end());
}

struct Column {
  std::string title;
  std::vector<std::string> predicted, measured;  // one a plan
};

Column bytes_column(const std::vector<Result>& results, Kind kind) {
  Column column{std::string(name_of(kind)), {}, {}};
  for (const Result& r : results) {
    const dist::Report::Bytes& b = r.report.bytes[static_cast<std::size_t>(kind)];
    const bool bound = kind == Kind::gathered && most(b.predicted) > 0;
    column.predicted.push_back((bound ? "<= " : "") + thousands(most(b.predicted)));
    column.measured.push_back(thousands(most(b.measured)));
  }
  return column;
}

Column traffic_column(const std::vector<Result>& results, const std::string& name) {
  Column column{name, {}, {}};
  for (const Result& r : results) {
    const auto found = r.report.traffic.find(name);
    const dist::Report::Flow flow =
        found == r.report.traffic.end() ? dist::Report::Flow{} : found->second;
    column.predicted.push_back(thousands(flow.predicted.bytes));
    column.measured.push_back(thousands(flow.shown().bytes));
  }
  return column;
}

/// Every collective that any plan used or should have used.
std::vector<std::string> collectives(const std::vector<Result>& results) {
  std::vector<std::string> names;
  for (const Result& r : results)
    for (const auto& [name, flow] : r.report.traffic)
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  return names;
}

std::string render(const std::vector<Result>& results, const std::vector<Column>& columns) {
  std::string out;
  std::vector<std::size_t> widths;
  for (const Column& c : columns) {
    std::size_t width = c.title.size();
    for (const auto& cells : {c.predicted, c.measured})
      for (const std::string& cell : cells) width = std::max(width, cell.size());
    widths.push_back(width);
  }
  const auto line = [&](std::string_view plan, std::string_view what, auto&& cell) {
    out += fmt::format("{:<6} {:<9}", plan, what);
    for (std::size_t c = 0; c < columns.size(); ++c)
      out += fmt::format("  {:>{}}", cell(columns[c]), widths[c]);
    out.erase(out.find_last_not_of(' ') + 1);
    out += '\n';
  };
  line("plan", "", [](const Column& c) { return c.title; });
  for (std::size_t i = 0; i < results.size(); ++i) {
    line(results[i].report.plan, "predicted", [&](const Column& c) { return c.predicted[i]; });
    line("", "measured", [&](const Column& c) { return c.measured[i]; });
  }
  return out;
}

/// How far the families' losses lie apart, which is rounding and nothing else.
std::string families_text(const Result& a, const Result& b) {
  const std::size_t first = first_difference(a, b);
  if (first == 0) return "";
  double largest = 0;
  for (std::size_t i = 0; i < std::min(a.steps.size(), b.steps.size()); ++i)
    largest =
        std::max(largest, std::abs(a.steps[i].loss - b.steps[i].loss) / std::abs(a.steps[i].loss));
  return fmt::format(
      "two families, as addition is not associative: {} sums micro-batches first, {} sums "
      "ranks first; first difference in step {}, largest {:.1e} of the loss\n",
      a.report.plan, b.report.plan, first, largest);
}

}  // namespace

Comparison compare(const std::vector<Result>& results) {
  Comparison c;
  Column losses{"losses", {}, {}}, weights{"weights", {}, {}}, time{"ms/step", {}, {}};
  std::string differences, families;
  std::vector<const Result*> firsts;  // of each family
  for (const Result& r : results) {
    const auto same = [&](const Result* first) { return family(*first) == family(r); };
    auto first = std::find_if(firsts.begin(), firsts.end(), same);
    if (first == firsts.end()) {
      if (!firsts.empty()) families += families_text(*firsts.front(), r);
      first = firsts.insert(firsts.end(), &r);
    }
    const std::string against = fmt::format("= {}", (*first)->report.plan);
    const std::size_t step = first_difference(**first, r);
    const bool same_weights = (*first)->weights == r.weights;
    const auto verdict = [&](bool equal) {
      return *first == &r ? "reference" : equal ? "equal" : "DIFFER";
    };
    losses.predicted.push_back(*first == &r ? "" : against);
    losses.measured.push_back(verdict(step == 0));
    weights.predicted.push_back(losses.predicted.back());
    weights.measured.push_back(verdict(same_weights));
    time.predicted.push_back("");
    time.measured.push_back(fmt::format("{:.3f}", r.seconds_per_step() * 1e3));
    if (step != 0) {
      const auto bits = [&](const Result& x) {
        return step > x.steps.size() ? "nothing" : loss_bits(x.steps[step - 1].loss);
      };
      differences +=
          fmt::format("{}: the losses differ from those of {} from step {} on: {}, expected {}\n",
                      r.report.plan, (*first)->report.plan, step, bits(r), bits(**first));
    }
    if (step == 0 && !same_weights)
      differences +=
          fmt::format("{}: the final weights differ from those of {}, the losses do not\n",
                      r.report.plan, (*first)->report.plan);
    if (!r.report.matches() || !r.report.is_alone())
      differences += fmt::format("{}: memory or traffic is not as predicted:\n{}", r.report.plan,
                                 r.report.text());
  }

  std::vector<Column> columns{std::move(losses), std::move(weights)};
  for (const Kind kind : {Kind::parameters, Kind::gradients, Kind::optimizer, Kind::gathered})
    columns.push_back(bytes_column(results, kind));
  for (const std::string& name : collectives(results))
    columns.push_back(traffic_column(results, name));
  columns.push_back(std::move(time));
  c.text = render(results, columns) +
           "memory: peak bytes of a rank; traffic: bytes that a rank sends in a step\n" + families +
           differences;
  c.equal = differences.empty();
  return c;
}

}  // namespace sg::cifar
