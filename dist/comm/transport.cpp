#include "dist/comm/transport.h"

#include <string_view>

#include "core/check.h"

namespace sg::dist {

std::string describe(const Posting& p) {
  std::string unit;
  if (p.unit.index >= 0) unit = fmt::format(" of unit {}", p.unit.index);
  if (*p.unit.name != '\0') unit += fmt::format(", {}", p.unit.name);
  return fmt::format("{}{} ({} x {}, collective {})", p.op, unit, p.count, name_of(p.dtype),
                     p.sequence);
}

void check_same(const Posting& mine, int rank, const Posting& theirs, int peer) {
  SG_CHECK(std::string_view(theirs.op) == mine.op && theirs.unit.index == mine.unit.index &&
               theirs.dtype == mine.dtype && theirs.count == mine.count,
           "[{}] rank {} is in {}, rank {} in {}: all ranks must run the same program", mine.op,
           rank, describe(mine), peer, describe(theirs));
  SG_CHECK(theirs.unseen == mine.unseen,
           "[{}] rank {} and rank {} came to {} by different collectives between their GPUs: all "
           "ranks must run the same program (SHARDGRAD_DEBUG=1 names the first that differs)",
           mine.op, rank, peer, describe(mine));
}

}  // namespace sg::dist
