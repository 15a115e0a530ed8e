#include "core/cuda/lanes.h"

#include <cstdlib>
#include <random>
#include <utility>

#include "core/check.h"
#include "core/cuda/context.h"
#include "core/cuda/kernels.h"

namespace sg::cuda {

class Mark {
 public:
  Mark(cudaStream_t stream) {
    check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "lane", "cudaEventCreate");
    const cudaError_t recorded = cudaEventRecord(event_, stream);
    if (recorded != cudaSuccess) cudaEventDestroy(event_);
    check(recorded, "lane", "cudaEventRecord");
  }
  // CUDA keeps what is recorded or waited for until it has happened.
  ~Mark() { cudaEventDestroy(event_); }
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;
  cudaEvent_t event() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

namespace {

cudaStream_t stream_of(Context& context, Lane lane) {
  context.use();
  switch (lane) {
    case Lane::communication:
      return context.communication();
    case Lane::copies_in:
      return context.copies_in();
    case Lane::copies_out:
      return context.copies_out();
    default:
      return context.compute();
  }
}

// For tests: SHARDGRAD_CUDA_DELAY=N makes lanes late at random, by up to N microseconds before each
// of their marks. A wait that is missing between two lanes then changes bits.
void delay_at_random(Context& context, Lane lane) {
  static const int most = [] {
    const char* text = std::getenv("SHARDGRAD_CUDA_DELAY");
    return text != nullptr ? std::atoi(text) : 0;
  }();
  if (most <= 0) return;
  thread_local std::minstd_rand random(std::random_device{}());
  delay({"delay", stream_of(context, lane), context.processors()},
        static_cast<std::int64_t>(random() % static_cast<unsigned>(most)));
}

}  // namespace

Context* current(Device device) { return &context(device); }

std::shared_ptr<Mark> mark(Context& context, Lane lane) {
  delay_at_random(context, lane);
  return std::make_shared<Mark>(stream_of(context, lane));
}

void wait(Context& context, Lane lane, const Mark& mark) {
  check(cudaStreamWaitEvent(stream_of(context, lane), mark.event(), 0), "lane",
        "cudaStreamWaitEvent");
}

void wait(const Mark& mark) {
  check(cudaEventSynchronize(mark.event()), "lane", "cudaEventSynchronize");
}

void wait(Context& context, const Mark& mark) {
  context.use();
  context.check_not_capturing("lane");
  context.check_done(cudaEventSynchronize(mark.event()), "lane", "cudaEventSynchronize");
}

void drain(Context& context, Lane lane) noexcept {
  try {
    check(cudaStreamSynchronize(stream_of(context, lane)), "lane", "cudaStreamSynchronize");
  } catch (const std::exception&) {
  }
}

bool reached(const Mark& mark) {
  const cudaError_t status = cudaEventQuery(mark.event());
  if (status == cudaSuccess) return true;
  cudaGetLastError();  // else the thread's next call would report it
  if (status == cudaErrorNotReady) return false;
  fail("cudaEventQuery: {} ({})", cudaGetErrorString(status), cudaGetErrorName(status));
}

void use(Device device) { check(cudaSetDevice(device.index), "device", "cudaSetDevice"); }

void share_pool(Device device, int gpus) {
  cudaMemPool_t pool = nullptr;
  check(cudaDeviceGetDefaultMemPool(&pool, device.index), "device", "cudaDeviceGetDefaultMemPool");
  for (int peer = 0; peer < gpus; ++peer) {
    int can = 0;
    if (peer != device.index)
      check(cudaDeviceCanAccessPeer(&can, peer, device.index), "device", "cudaDeviceCanAccessPeer");
    if (can == 0) continue;
    cudaMemAccessDesc access{};
    access.location.type = cudaMemLocationTypeDevice;
    access.location.id = peer;
    access.flags = cudaMemAccessFlagsProtReadWrite;
    check(cudaMemPoolSetAccess(pool, &access, 1), "device", "cudaMemPoolSetAccess");
  }
}

void set_collectives(Context& context, std::weak_ptr<const Collectives> collectives) {
  context.set_collectives(std::move(collectives));
}

void copy(Context& context, Lane lane, void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_of(context, lane)),
        "lane", "cudaMemcpyAsync");
}

void upload(Context& context, Lane lane, void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_of(context, lane)), "lane",
        "cudaMemcpyAsync");
}

void download(Context& context, Lane lane, void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_of(context, lane)), "lane",
        "cudaMemcpyAsync");
}

void copy_found(Context& context, void* to) {
  copy(context, Lane::compute, to, context.found(), kFoundWords * sizeof(std::int64_t));
}

void clear_found(Context& context) {
  context.use();
  context.clear_found("lane");
}

void put_found(Context& context, const void* from) {
  copy(context, Lane::compute, context.found(), from, kFoundWords * sizeof(std::int64_t));
}

void zero(Context& context, Lane lane, void* to, std::size_t bytes) {
  if (bytes == 0) return;
  check(cudaMemsetAsync(to, 0, bytes, stream_of(context, lane)), "lane", "cudaMemsetAsync");
}

void fold(Context& context, Lane lane, DType dtype, void* out, std::span<const void* const> sources,
          std::int64_t n) {
  const Launch on{"reduce_scatter", stream_of(context, lane), context.processors()};
  fold(on, dtype, out, sources.data(), static_cast<int>(sources.size()), n);
}

}  // namespace sg::cuda
