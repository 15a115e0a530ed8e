// Do all ranks run the same program? The header of each collective is compared where its bytes are
// read; this compares also what was started and never waited for.
#pragma once

#include "dist/comm/comm.h"

namespace sg::dist {

/// Collective. An error that names the first collective (of the last Comm::kHistory) in which ranks
/// differ, and what two of them did there. Not a part of the step's traffic.
void check_same_sequence(Comm& comm);

/// Whether the environment asks for such checks: SHARDGRAD_DEBUG is set, and not to 0.
bool debug_by_environment();

}  // namespace sg::dist
