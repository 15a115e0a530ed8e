// The rank of this thread without making one: current_rank() gives a thread that has none a private
// rank, with a team of compute threads that would then compete with those of the ranks it starts.
#pragma once

namespace sg {

struct Rank;

/// What current_rank() would give, or null where it would have to make it.
Rank* thread_rank();

}  // namespace sg
