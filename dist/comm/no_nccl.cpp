// Of a build without NCCL.
#include "core/check.h"
#include "dist/comm/nccl.h"

#if !SG_NCCL

namespace sg::dist {

bool has_nccl() { return false; }
std::string nccl_id() {
  fail(
      "[nccl] this build has no NCCL to connect GPUs; configure with SHARDGRAD_CUDA=ON and "
      "SHARDGRAD_NCCL=ON");
}
void use_nccl(Comm&, const NcclOptions&) { nccl_id(); }

}  // namespace sg::dist

#endif
