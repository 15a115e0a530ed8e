#include "dist/plan.h"

#include <fmt/format.h>

#include <string>
#include <vector>

#include "core/check.h"
#include "core/did_you_mean.h"

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

}  // namespace

std::string_view name_of(Layout layout) {
  return layout == Layout::full ? "full" : layout == Layout::shard ? "shard" : "partial";
}

std::span<const Plan> plans() { return kPlans; }

const Plan& find_plan(std::string_view name) {
  std::vector<std::string_view> names;
  for (std::size_t i = 0; i < std::size(kPlans); ++i) {
    if (name == kPlans[i].name || name == std::to_string(i)) return kPlans[i];
    names.push_back(kPlans[i].name);
  }
  fail("[plan] there is no plan '{}'{} (plans: {})", name, did_you_mean(name, names),
       fmt::join(names, ", "));
}

}  // namespace sg::dist
