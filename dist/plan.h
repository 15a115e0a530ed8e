// The table: a plan says, for parameter, gradient and optimizer state, the layout and tier at rest.
// All collectives follow from it: a collective is the arrow between two cells. Nothing else decides
// by a plan's name or a stage's number, so that a new plan is a row and no new code.
//
//   plan   source
//   ddp    Li et al., "PyTorch distributed", VLDB 2020, section 3
//   zero1  Rajbhandari et al., "ZeRO: memory optimizations toward training trillion parameter
//          models", SC 2020, 5.1
//   zero2  the same, 5.2
//   zero3  the same, 5.3
#pragma once

#include <span>
#include <string_view>

#include "core/device.h"

namespace sg::dist {

/// What a rank has of a unit. `partial`: full size, but this rank's contribution only, not yet
/// summed over ranks.
enum class Layout { full, shard, partial };
std::string_view name_of(Layout layout);

struct Cell {
  Layout layout;
  Tier tier = Tier::device;
};

struct Plan {
  std::string_view name;
  Cell param;    ///< between uses
  Cell grad;     ///< where micro-batches accumulate
  Cell reduced;  ///< the summed gradient as `step` reads it
  Cell state;    ///< of the optimizer; its layout says who updates what
};

/// The rows. Adding a plan is adding a row.
std::span<const Plan> plans();
/// The row of that name, or of DeepSpeed's stage number ("0" to "3"). An unknown name is an error
/// with the nearest one.
const Plan& find_plan(std::string_view name);

}  // namespace sg::dist
