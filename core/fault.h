// Faults on demand, for tests of what happens when a rank fails. Compiled out of release builds.
//
//   SHARDGRAD_FAULT="kill@rank2:reduce_scatter#5"     rank 2, its sixth reduce_scatter (from 0)
//
// Actions: kill (SIGKILL), stop (SIGSTOP), throw, exit (status 3), delay500 (milliseconds), and
// those that the site carries out: skip (as if the program did not get there), wrongshape (one
// element more), nan. Sites: the collectives by name (all_gather, reduce_scatter, control, ...),
// `step` and `data`. Several faults are separated by commas.
#pragma once

#include <string_view>

namespace sg::fault {

enum class Action { none, skip, wrongshape, nan };

#if SG_FAULTS
/// Carries out the fault of this moment, if there is one, or returns what the site must do. Errors:
/// a SHARDGRAD_FAULT that cannot be read.
Action at(std::string_view site);
#else
constexpr Action at(std::string_view) { return Action::none; }
#endif

}  // namespace sg::fault
