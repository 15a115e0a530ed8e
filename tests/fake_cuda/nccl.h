// NCCL for machines that have no GPU: the part that shardgrad uses, between threads of one process
// and on the stand-in's streams. Found instead of NCCL's header where SHARDGRAD_CUDA is FAKE.
//
// What is sent lies in a mailbox from then on; a receive waits for it. Where streams are threads
// (SHARDGRAD_FAKE_CUDA=threads) a stream's thread waits, as a GPU's would, and calls are in
// progress until ncclCommGetAsyncError has been asked twice; else they are until the peers have
// come. A call on a communicator that is in progress is an error. A receive of another collective
// or size than what was sent never ends, which is the best that can be hoped for of NCCL.
// ncclReduceScatter sums from the highest rank down: close to the sum in rank order, and seldom
// equal to it. ncclCommAbort takes its time.
#pragma once

#define SG_FAKE_NCCL 1

#include <cuda_runtime_api.h>

#include <cstddef>

struct FakeNcclComm;
using ncclComm_t = FakeNcclComm*;
struct ncclUniqueId {
  char internal[128];
};
struct ncclConfig_t {
  int blocking;
};
#define NCCL_CONFIG_INITIALIZER \
  { 1 }

enum ncclResult_t {
  ncclSuccess,
  ncclUnhandledCudaError,
  ncclSystemError,
  ncclInternalError,
  ncclInvalidArgument,
  ncclInvalidUsage,
  ncclRemoteError,
  ncclInProgress,
};
enum ncclDataType_t { ncclUint8 = 1, ncclFloat32 = 7, ncclFloat64 = 8 };
enum ncclRedOp_t { ncclSum };

ncclResult_t ncclGetVersion(int* version);
const char* ncclGetErrorString(ncclResult_t result);
const char* ncclGetLastError(ncclComm_t comm);
ncclResult_t ncclGetUniqueId(ncclUniqueId* id);
ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t* config);
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error);
ncclResult_t ncclCommFinalize(ncclComm_t comm);
ncclResult_t ncclCommDestroy(ncclComm_t comm);
ncclResult_t ncclCommAbort(ncclComm_t comm);
ncclResult_t ncclGroupStart();
ncclResult_t ncclGroupEnd();
ncclResult_t ncclSend(const void* data, std::size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclRecv(void* data, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream);
ncclResult_t ncclAllGather(const void* from, void* to, std::size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclReduceScatter(const void* from, void* to, std::size_t count, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream);

namespace sg::cuda::fake {

/// The communicator of that rank, in the group that was made last, has this asynchronous error.
void nccl_fails(int rank, ncclResult_t error);
/// Calls of ncclCommAbort that have returned.
int nccl_aborts();
/// Most collectives of one communicator that were ever queued and not done, where streams are
/// threads.
int nccl_most_queued();

}  // namespace sg::cuda::fake
