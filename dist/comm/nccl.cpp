#include "dist/comm/nccl.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/check.h"
#include "dist/comm/nccl_group.h"

namespace sg::dist {

bool has_nccl() { return true; }

std::string nccl_id() {
  ncclUniqueId id;
  const ncclResult_t result = nccl().GetUniqueId(&id);
  SG_CHECK(result == ncclSuccess, "[nccl] ncclGetUniqueId: {} ({})", nccl().GetErrorString(result),
           nccl().GetLastError(nullptr));
  return std::string(id.internal, sizeof id.internal);
}

void use_nccl(Comm& comm, const NcclOptions& options) {
  comm.use(std::make_unique<NcclGroup>(comm.transport(), options));
}

NcclGroup::NcclGroup(Transport& host, const NcclOptions& options)
    : host_(host),
      options_(options),
      watch_(options.device,
             {.trouble = [this](const Posting& p, Clock::duration t) { return trouble(p, t); },
              .idle_trouble = [this] { return idle_trouble(); },
              .lost = [this](const Posting& p, const std::string& e) { return ended(p, e); },
              .give_up = [this](const std::string& text) { give_up(text); }}) {
  ncclUniqueId id;
  SG_CHECK(options.id.size() == sizeof id.internal, "[nccl] an id has {} bytes, got {}",
           sizeof id.internal, options.id.size());
  std::memcpy(id.internal, options.id.data(), sizeof id.internal);
  const char* const blocking = std::getenv("NCCL_COMM_BLOCKING");
  SG_CHECK(blocking == nullptr || std::strcmp(blocking, "1") != 0,
           "[nccl] NCCL_COMM_BLOCKING=1 makes calls wait for ever for a rank that never comes; "
           "unset it");
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  // Calls return at once and are asked how they went, so that a peer that never comes can be given
  // up: a call that blocks could not even be aborted safely.
  config.blocking = 0;
  cuda::current(options.device);  // NCCL takes the thread's current device
  if (options.one_process) cuda::share_pool(options.device, host_.size());
  call({.op = "connect"}, [&](ncclComm_t) {
    return nccl().CommInitRankConfig(&comm_, host_.size(), id, host_.rank(), &config);
  });
}

NcclGroup::~NcclGroup() {
  watch_.stop();
  abort();
  if (!scratch_.defined()) return;
  try {
    order_scratch();
  } catch (const std::exception&) {
    // The device is lost; its error was thrown where it was found.
  }
}

void NcclGroup::abort() {
  ncclComm_t comm = nullptr;
  {
    const std::lock_guard lock(mutex_);
    comm = std::exchange(comm_, nullptr);
  }
  if (comm != nullptr) nccl().CommAbort(comm);
  const std::lock_guard lock(mutex_);
  aborted_ = true;
  changed_.notify_all();
}

void NcclGroup::wait_for_room(const Posting& mine) {
  const auto has_room = [&] {
    try {
      return watch_.has_room();
    } catch (const std::exception& error) {  // the device is lost
      give_up(ended(mine, error.what()));
      return false;
    }
  };
  while (!has_room()) {
    check();
    std::this_thread::sleep_for(kMoment);
  }
}

template <class F>
void NcclGroup::call(const Posting& mine, F f) {
  struct Calling {
    explicit Calling(std::atomic<bool>& f) : flag(f) { flag = true; }
    ~Calling() { flag = false; }
    std::atomic<bool>& flag;
  } const calling(calling_);
  wait_for_room(mine);
  ncclResult_t result = ncclSuccess;
  {
    std::unique_lock lock(mutex_);
    throw_failure(lock);
    result = f(comm_);
  }
  const Clock::time_point start = Clock::now();
  while (result == ncclInProgress) {
    const auto waited = Clock::now() - start;
    const std::string text = held_up(mine, waited);
    if (!text.empty()) give_up(text);
    // As a rule it takes a moment; a peer that has yet to come takes long.
    if (waited < kMoment)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(kMoment);
    std::unique_lock lock(mutex_);
    throw_failure(lock);
    const ncclResult_t asked = nccl().CommGetAsyncError(comm_, &result);
    if (asked != ncclSuccess) result = asked;
  }
  if (result == ncclSuccess) return;
  give_up(broken(mine, result));
  check();
}

void NcclGroup::gather(cuda::Context& context, const Posting& mine, void* out) {
  // It moves bytes and computes nothing, so there is but one result.
  call(mine, [&](ncclComm_t comm) {
    return nccl().AllGather(mine.data, out, static_cast<std::size_t>(mine.bytes), ncclUint8, comm,
                            context.communication());
  });
}

std::vector<const void*> NcclGroup::terms(cuda::Context& context, const Posting& mine, void* room) {
  return options_.deterministic ? terms_in_order(context, mine) : total(context, mine, room);
}

std::vector<const void*> NcclGroup::terms_in_order(cuda::Context& context, const Posting& mine) {
  const int rank = host_.rank(), ranks = host_.size();
  char* const in = ranks > 1 ? scratch(context, mine, (ranks - 1) * mine.bytes) : nullptr;
  const auto place = [&](int r) { return in + (r < rank ? r : r - 1) * mine.bytes; };
  call(mine, [&](ncclComm_t comm) {
    const cudaStream_t stream = context.communication();
    const std::size_t bytes = static_cast<std::size_t>(mine.bytes);
    ncclResult_t result = nccl().GroupStart();
    for (int k = 1; k < ranks && result == ncclSuccess; ++k) {
      const int to = (rank + k) % ranks, from = (rank + ranks - k) % ranks;
      result = nccl().Send(mine.data + to * mine.stride, bytes, ncclUint8, to, comm, stream);
      if (result == ncclSuccess)
        result = nccl().Recv(place(from), bytes, ncclUint8, from, comm, stream);
    }
    const ncclResult_t end = nccl().GroupEnd();
    return result == ncclSuccess ? end : result;
  });
  std::vector<const void*> all;
  for (int r = 0; r < ranks; ++r) all.push_back(r == rank ? mine.data + r * mine.stride : place(r));
  return all;
}

std::vector<const void*> NcclGroup::total(cuda::Context& context, const Posting& mine, void* room) {
  void* const out = room != nullptr ? room : scratch(context, mine, mine.bytes);
  const std::size_t count = static_cast<std::size_t>(mine.bytes) / size_of(mine.dtype);
  call(mine, [&](ncclComm_t comm) {
    return nccl().ReduceScatter(mine.data, out, count,
                                mine.dtype == DType::f64 ? ncclFloat64 : ncclFloat32, ncclSum, comm,
                                context.communication());
  });
  return {out};
}

// One block for all collectives, which the lane does one after another; of the size of the largest
// so far, so that it grows in the first step alone.
char* NcclGroup::scratch(cuda::Context& context, const Posting& mine, std::int64_t bytes) {
  if (!scratch_.defined() || scratch_.bytes() < bytes) {
    largest_ = std::max(largest_, bytes);
    if (scratch_.defined()) order_scratch();
    scratch_ = {};
    const Scoped kind(current_rank().kind, Kind::buffers);
    scratch_ = Tensor::empty({largest_}, DType::u8, mine.device);
    scratch_.storage()->label = "nccl";
    scratch_on_ = &context;
    cuda::wait(context, cuda::Lane::communication, *cuda::mark(context, cuda::Lane::compute));
  }
  return static_cast<char*>(scratch_.raw_data());
}

// It is freed in the order of the compute lane.
void NcclGroup::order_scratch() {
  cuda::wait(*scratch_on_, cuda::Lane::compute,
             *cuda::mark(*scratch_on_, cuda::Lane::communication));
}

void NcclGroup::drain() {
  watch_.drain();
  check();
  trim();
}

void NcclGroup::close() {
  call({.op = kClose}, [](ncclComm_t comm) { return nccl().CommFinalize(comm); });
  std::unique_lock lock(mutex_);
  throw_failure(lock);
  closed_ = true;
  const ncclResult_t result = nccl().CommDestroy(std::exchange(comm_, nullptr));
  SG_CHECK(result == ncclSuccess || result == ncclInProgress,
           "[nccl] rank {} cannot end its group: {}", host_.rank(), nccl().GetErrorString(result));
}

}  // namespace sg::dist
