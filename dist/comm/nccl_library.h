// NCCL's functions. The library is loaded when a group of GPUs is made, as cuBLASLt is when a
// matrix is multiplied: a binary must start where it is not installed, and its 200 MB are of no use
// to the processes that run on CPUs or on one GPU. Only its header is needed to compile.
#pragma once

#include <nccl.h>

namespace sg::dist {

// What is used has not changed since 2.18, with which groups that do not block became whole.
// clang-format off
#define SG_NCCL_FUNCTIONS(F)                                                             \
  F(GetVersion) F(GetErrorString) F(GetLastError) F(GetUniqueId) F(CommInitRankConfig)   \
  F(CommGetAsyncError) F(CommFinalize) F(CommDestroy) F(CommAbort) F(GroupStart)         \
  F(GroupEnd) F(Send) F(Recv) F(AllGather) F(ReduceScatter)
// clang-format on
inline constexpr int kLeastNccl = 21800;

struct NcclLibrary {
#define SG_NCCL_MEMBER(name) decltype(&nccl##name) name = nullptr;
  SG_NCCL_FUNCTIONS(SG_NCCL_MEMBER)
#undef SG_NCCL_MEMBER
};

/// Errors: it cannot be loaded, or is too old.
const NcclLibrary& nccl();

}  // namespace sg::dist
