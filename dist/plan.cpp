#include "dist/plan.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "core/check.h"

namespace sg::dist {
namespace {

constexpr Cell kFull{Layout::full}, kShard{Layout::shard}, kPartial{Layout::partial};

constexpr Plan kPlans[] = {
    // name    param   grad      reduced  state
    {"ddp", kFull, kPartial, kFull, kFull},
    {"zero1", kFull, kPartial, kShard, kShard},
    {"zero2", kFull, kShard, kShard, kShard},
    {"zero3", kShard, kShard, kShard, kShard},
};

// Levenshtein's distance, for "did you mean".
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, change}));
    }
  }
  return row[b.size()];
}

}  // namespace

std::string_view name_of(Layout layout) {
  return layout == Layout::full ? "full" : layout == Layout::shard ? "shard" : "partial";
}

std::span<const Plan> plans() { return kPlans; }

const Plan& find_plan(std::string_view name) {
  const Plan* nearest = &kPlans[0];
  for (std::size_t i = 0; i < std::size(kPlans); ++i) {
    if (name == kPlans[i].name || name == std::to_string(i)) return kPlans[i];
    if (edit_distance(name, kPlans[i].name) < edit_distance(name, nearest->name))
      nearest = &kPlans[i];
  }
  std::string all;
  for (const Plan& plan : kPlans) all += fmt::format("{}{}", all.empty() ? "" : ", ", plan.name);
  fail("[plan] there is no plan '{}'; did you mean {}? (plans: {})", name, nearest->name, all);
}

}  // namespace sg::dist
