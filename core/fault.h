// Faults on demand, for tests of what happens when a rank fails. Compiled out of release builds.
//
//   SHARDGRAD_FAULT="kill@rank2:reduce_scatter#5"     rank 2, its sixth reduce_scatter (from 0)
//
// Actions: kill (SIGKILL), stop (SIGSTOP), throw, exit (status 3), delay500 (milliseconds), and
// those that the site carries out. Sites: the collectives by name (all_gather, reduce_scatter,
// control, ...), which know skip (as if the program did not get there) and wrongshape (one element
// more); `step`, which knows skip, nan (of all gradients) and wrong (1 more in the first gradient);
// `data`, which knows nan. Several faults are separated by commas.
#pragma once

#include <initializer_list>
#include <string_view>

namespace sg::fault {

enum class Action { none, skip, wrongshape, nan, wrong };

#if SG_FAULTS
/// Carries out the fault of this moment, if there is one, or returns what the site must do, which
/// is one of `known`. Errors: a SHARDGRAD_FAULT that cannot be read, or that the site cannot do.
Action at(std::string_view site, std::initializer_list<Action> known);
#else
constexpr Action at(std::string_view, std::initializer_list<Action>) { return Action::none; }
#endif

}  // namespace sg::fault
