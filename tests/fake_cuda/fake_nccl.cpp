#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using Bytes = std::vector<char>;

enum class Call { send, gather, scatter };

struct Message {
  Call call;
  Bytes bytes;
};

// What the communicators of one id share.
struct Clique {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<int> devices;  // -1: not yet there
  std::vector<bool> aborted, finalized;
  std::vector<ncclResult_t> errors;
  std::vector<int> queued;  // collectives of a rank that its stream has yet to do
  std::map<std::pair<int, int>, std::deque<Message>> mail;  // by (from, to)
  bool complete() const { return std::count(devices.begin(), devices.end(), -1) == 0; }
};

// A collective of one rank: sends what it has, then takes what the others sent.
struct Work {
  std::shared_ptr<Clique> clique;
  int rank;
  std::vector<std::function<void()>> sends;  // with the mutex held
  struct Wanted {
    int peer;
    Call call;
    std::size_t bytes;
    std::function<void(const Bytes&)> take;
  };
  std::vector<Wanted> wanted;
  bool sent = false;

  // An error alone ends nothing: a GPU waits until it is aborted.
  bool over() const { return clique->aborted[static_cast<std::size_t>(rank)]; }
  // With the mutex held. True when nothing is left to wait for.
  bool advance() {
    if (!std::exchange(sent, true)) {
      for (const auto& send : sends) send();
      clique->changed.notify_all();
    }
    while (!wanted.empty() && !over()) {
      const Wanted& next = wanted.front();
      auto& box = clique->mail[{next.peer, rank}];
      if (box.empty() || box.front().call != next.call || box.front().bytes.size() != next.bytes)
        return false;
      const Bytes bytes = std::move(box.front().bytes);
      box.pop_front();
      next.take(bytes);
      wanted.erase(wanted.begin());
    }
    return true;
  }
};

std::mutex cliques_mutex;
std::map<std::string, std::weak_ptr<Clique>> cliques;
std::weak_ptr<Clique> last_clique;
std::atomic<int> ids{0};

std::size_t size_of(ncclDataType_t type) {
  return type == ncclFloat64 ? 8 : type == ncclFloat32 ? 4 : 1;
}

// Of the calls between ncclGroupStart and ncclGroupEnd.
struct Group {
  int depth = 0;
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;
  std::shared_ptr<Work> work;
};
thread_local Group group;

template <class T>
void add(char* sum, const Bytes& bytes) {
  for (std::size_t i = 0; i < bytes.size() / sizeof(T); ++i) {
    T a, b;
    std::memcpy(&a, sum + i * sizeof(T), sizeof(T));
    std::memcpy(&b, bytes.data() + i * sizeof(T), sizeof(T));
    a += b;
    std::memcpy(sum + i * sizeof(T), &a, sizeof(T));
  }
}

}  // namespace

struct FakeNcclComm {
  std::shared_ptr<Clique> clique;
  int rank = 0;
  std::shared_ptr<Work> under_way = nullptr;  // where work runs as it is queued
  int asks_left = 0;                          // until the last call is no more in progress
  std::size_t at() const { return static_cast<std::size_t>(rank); }
};

namespace {

Work& work_of(ncclComm_t comm, cudaStream_t stream) {
  if (group.work == nullptr) {
    group.work = std::make_shared<Work>();
    group.work->clique = comm->clique;
    group.work->rank = comm->rank;
    group.comm = comm;
    group.stream = stream;
  }
  return *group.work;
}

void send_bytes(Work& work, Call call, const void* data, std::size_t bytes, int peer) {
  work.sends.push_back([&work, call, data, bytes, peer] {
    const char* from = static_cast<const char*>(data);
    work.clique->mail[{work.rank, peer}].push_back({call, Bytes(from, from + bytes)});
  });
}

std::atomic<int> aborts{0}, most_queued{0};

bool in_progress(const FakeNcclComm& comm) {
  return !comm.clique->complete() || comm.under_way != nullptr || comm.asks_left > 0;
}

ncclResult_t launch() {
  const Group now = std::exchange(group, Group{});
  if (now.work == nullptr) return ncclSuccess;
  Clique& clique = *now.work->clique;
  std::unique_lock lock(clique.mutex);
  if (in_progress(*now.comm)) return ncclInvalidArgument;
  if (sg::cuda::fake::threaded()) {
    now.comm->asks_left = 2;
    int& queued = clique.queued[now.comm->at()];
    most_queued = std::max(most_queued.load(), ++queued);
    lock.unlock();
    sg::cuda::fake::enqueue(now.stream, [work = now.work, &queued] {
      std::unique_lock held(work->clique->mutex);
      work->clique->changed.wait(held, [&] { return work->over() || work->advance(); });
      --queued;
    });
    return ncclInProgress;
  }
  if (now.work->over() || now.work->advance()) return ncclSuccess;
  now.comm->under_way = now.work;
  return ncclInProgress;
}

}  // namespace

ncclResult_t ncclGetVersion(int* version) {
  *version = 22809;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclUnhandledCudaError:
      return "unhandled cuda error";
    case ncclInvalidUsage:
      return "invalid usage";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    default:
      return "an error of the stand-in";
  }
}
const char* ncclGetLastError(ncclComm_t) { return "the stand-in's details"; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  *id = {};
  const std::string text = "fake " + std::to_string(++ids);
  text.copy(id->internal, sizeof id->internal);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  if (config->blocking != 0) return ncclInvalidArgument;
  std::shared_ptr<Clique> clique;
  {
    const std::lock_guard lock(cliques_mutex);
    std::weak_ptr<Clique>& known = cliques[id.internal];
    clique = known.lock();
    if (clique == nullptr) {
      clique = std::make_shared<Clique>();
      const auto n = static_cast<std::size_t>(ranks);
      clique->devices.assign(n, -1);
      clique->aborted.assign(n, false);
      clique->finalized.assign(n, false);
      clique->errors.assign(n, ncclSuccess);
      clique->queued.assign(n, 0);
      known = clique;
    }
    last_clique = clique;
  }
  *comm = new FakeNcclComm{.clique = clique, .rank = rank};
  const std::lock_guard lock(clique->mutex);
  int device = 0;
  cudaGetDevice(&device);
  if (std::count(clique->devices.begin(), clique->devices.end(), device) > 0)
    clique->errors[(*comm)->at()] = ncclInvalidUsage;  // "Duplicate GPU detected"
  clique->devices[(*comm)->at()] = device;
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  Clique& clique = *comm->clique;
  const std::lock_guard lock(clique.mutex);
  *error = clique.errors[comm->at()];
  if (*error != ncclSuccess) return ncclSuccess;
  if (!clique.complete()) *error = ncclInProgress;
  if (comm->asks_left > 0 && --comm->asks_left > 0) *error = ncclInProgress;
  if (comm->under_way != nullptr) {
    if (comm->under_way->advance())
      comm->under_way = nullptr;
    else
      *error = ncclInProgress;
  }
  if (clique.finalized[comm->at()] &&
      std::count(clique.finalized.begin(), clique.finalized.end(), false) > 0)
    *error = ncclInProgress;
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  const std::lock_guard lock(comm->clique->mutex);
  if (in_progress(*comm)) return ncclInvalidArgument;
  comm->clique->finalized[comm->at()] = true;
  return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  delete comm;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  {
    const std::lock_guard lock(comm->clique->mutex);
    comm->clique->aborted[comm->at()] = true;
  }
  comm->clique->changed.notify_all();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  delete comm;
  ++aborts;
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  ++group.depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() { return --group.depth > 0 ? ncclSuccess : launch(); }

ncclResult_t ncclSend(const void* data, std::size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  ncclGroupStart();
  send_bytes(work_of(comm, stream), Call::send, data, count * size_of(type), peer);
  return ncclGroupEnd();
}

ncclResult_t ncclRecv(void* data, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  ncclGroupStart();
  work_of(comm, stream)
      .wanted.push_back({peer, Call::send, count * size_of(type), [data](const Bytes& bytes) {
                           std::memcpy(data, bytes.data(), bytes.size());
                         }});
  return ncclGroupEnd();
}

ncclResult_t ncclAllGather(const void* from, void* to, std::size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
  ncclGroupStart();
  Work& work = work_of(comm, stream);
  const std::size_t bytes = count * size_of(type);
  const int ranks = static_cast<int>(comm->clique->devices.size());
  for (int r = 0; r < ranks; ++r) {
    send_bytes(work, Call::gather, from, bytes, r);
    char* const place = static_cast<char*>(to) + static_cast<std::size_t>(r) * bytes;
    work.wanted.push_back({r, Call::gather, bytes, [place](const Bytes& got) {
                             std::memcpy(place, got.data(), got.size());
                           }});
  }
  return ncclGroupEnd();
}

ncclResult_t ncclReduceScatter(const void* from, void* to, std::size_t count, ncclDataType_t type,
                               ncclRedOp_t, ncclComm_t comm, cudaStream_t stream) {
  ncclGroupStart();
  Work& work = work_of(comm, stream);
  const std::size_t bytes = count * size_of(type);
  const int ranks = static_cast<int>(comm->clique->devices.size());
  char* const sum = static_cast<char*>(to);
  for (int r = 0; r < ranks; ++r)
    send_bytes(work, Call::scatter,
               static_cast<const char*>(from) + static_cast<std::size_t>(r) * bytes, bytes, r);
  for (int r = ranks - 1; r >= 0; --r)
    work.wanted.push_back(
        {r, Call::scatter, bytes, [sum, type, first = r == ranks - 1](const Bytes& got) {
           if (first)
             std::memcpy(sum, got.data(), got.size());
           else if (type == ncclFloat64)
             add<double>(sum, got);
           else
             add<float>(sum, got);
         }});
  return ncclGroupEnd();
}

namespace sg::cuda::fake {

void nccl_fails(int rank, ncclResult_t error) {
  std::shared_ptr<Clique> clique;
  {
    const std::lock_guard lock(cliques_mutex);
    clique = last_clique.lock();
  }
  if (clique == nullptr) return;
  const std::lock_guard lock(clique->mutex);
  clique->errors[static_cast<std::size_t>(rank)] = error;
}
int nccl_aborts() { return aborts; }
int nccl_most_queued() { return most_queued; }

}  // namespace sg::cuda::fake
