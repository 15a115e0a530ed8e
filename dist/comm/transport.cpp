#include "dist/comm/transport.h"

#include <string_view>

#include "core/check.h"

namespace sg::dist {

std::string describe(const Posting& p) {
  return fmt::format("{}{} ({} x {}, collective {})", p.op,
                     p.unit < 0 ? "" : fmt::format(" of unit {}", p.unit), p.count,
                     name_of(p.dtype), p.sequence);
}

void check_same(const Posting& mine, int rank, const Posting& theirs, int peer) {
  SG_CHECK(std::string_view(theirs.op) == mine.op && theirs.unit == mine.unit &&
               theirs.dtype == mine.dtype && theirs.count == mine.count,
           "[{}] rank {} is in {}, rank {} in {}: all ranks must run the same program", mine.op,
           rank, describe(mine), peer, describe(theirs));
}

}  // namespace sg::dist
