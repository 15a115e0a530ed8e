#include <cuda_runtime_api.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using Work = std::function<void()>;

constexpr int kDevices = 4;
constexpr std::size_t kTotal = std::size_t{1} << 34;

thread_local cudaError_t last_error = cudaSuccess;
thread_local int current_device = 0;

// A device's memory: what CUDA itself takes, and a pool that gives nothing back.
constexpr std::size_t kOwn = std::size_t{300} << 20;
constexpr std::size_t kGrain = 512;

cudaError_t keep(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

// A call that is to fail.
struct Failure {
  std::mutex mutex;
  std::string name;  // empty: none
  int calls_left = 0;
  cudaError_t error = cudaSuccess;
};
Failure failure;
std::atomic<bool> any_failure{false};
std::atomic<int> streams{0}, events{0};

cudaError_t failing(const char* name) {
  if (!any_failure.load()) return cudaSuccess;
  const std::lock_guard lock(failure.mutex);
  if (failure.name != name || --failure.calls_left > 0) return cudaSuccess;
  failure.name.clear();
  any_failure = false;
  return keep(failure.error);
}

int delay() {
  static const int microseconds = [] {
    const char* text = std::getenv("SHARDGRAD_FAKE_CUDA_DELAY");
    return text != nullptr ? std::atoi(text) : 0;
  }();
  return microseconds;
}

// What an event was last recorded as. Waiting streams hold on to the recording they saw.
struct Recording {
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;

  void finish() {
    {
      const std::lock_guard lock(mutex);
      done = true;
    }
    changed.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return done; });
  }
};

}  // namespace

namespace sg::cuda::fake {

// SHARDGRAD_FAKE_CUDA: 1 runs work as it is queued, which is quick; `threads` has a thread a
// stream.
bool threaded() {
  static const bool asked = [] {
    const char* text = std::getenv("SHARDGRAD_FAKE_CUDA");
    return text != nullptr && std::strcmp(text, "threads") == 0;
  }();
  return asked;
}

}  // namespace sg::cuda::fake

using sg::cuda::fake::threaded;

// Work of the streams that take part in a capture, in order, and the memory that it allocates. The
// streams must have come back to the first one when it ends.
struct FakeGraph {
  std::vector<Work> works;
  std::map<void*, bool> blocks;  // allocated by the graph: whether it frees them too
  std::map<FakeStream*, std::size_t> queued, joined;
  cudaError_t error = cudaSuccess;
  FakeStream* origin = nullptr;
  ~FakeGraph();
};

// What the calling thread captures: calls that might wait for the device break it, whatever stream
// or event they are about.
thread_local FakeGraph* own_capture = nullptr;
cudaError_t breaks_capture() {
  if (own_capture == nullptr) return cudaSuccess;
  return keep(own_capture->error = cudaErrorStreamCaptureUnsupported);
}

struct FakeEvent {
  std::mutex mutex;
  std::shared_ptr<Recording> recording;  // null: never recorded
  FakeGraph* capture = nullptr;          // recorded in it, by that stream, after so much work
  FakeStream* stream = nullptr;
  std::size_t queued = 0;
  std::shared_ptr<Recording> last() {
    const std::lock_guard lock(mutex);
    return recording;
  }
};

struct FakePool {
  std::atomic<std::size_t> used{0}, reserved{0};

  bool take(std::size_t bytes) {
    const std::size_t now = used += bytes;
    if (now > kTotal - kOwn) {
      used -= bytes;
      return false;
    }
    std::size_t most = reserved.load();
    while (now > most && !reserved.compare_exchange_weak(most, now)) {
    }
    return true;
  }
};

namespace {
FakePool pools[kDevices], graph_pools[kDevices];  // of streams, and of captured work
}

struct FakeStream {
  FakeStream() {
    if (threaded()) thread = std::thread([this] { run(); });
  }
  ~FakeStream() {
    if (!threaded()) return;
    {
      const std::lock_guard lock(mutex);
      stop = true;
    }
    changed.notify_all();
    thread.join();
  }
  void enqueue(Work work) {
    if (capture != nullptr) {
      ++capture->queued[this];
      return capture->works.push_back(std::move(work));
    }
    if (!threaded()) {
      const std::lock_guard lock(mutex);
      return work();
    }
    {
      const std::lock_guard lock(mutex);
      queue.push_back(std::move(work));
    }
    changed.notify_all();
  }
  void run() {
    std::minstd_rand random(std::random_device{}());
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [&] { return stop || !queue.empty(); });
      if (queue.empty()) return;
      Work work = std::move(queue.front());
      queue.pop_front();
      lock.unlock();
      if (delay() > 0)
        std::this_thread::sleep_for(
            std::chrono::microseconds(random() % static_cast<unsigned>(delay())));
      work();
      work = nullptr;
      lock.lock();
    }
  }
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Work> queue;
  bool stop = false;
  std::thread thread;
  FakeGraph* capture = nullptr;
};

namespace sg::cuda::fake {
void enqueue(cudaStream_t stream, Work work) { stream->enqueue(std::move(work)); }
}  // namespace sg::cuda::fake

using sg::cuda::fake::enqueue;

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorNoDevice:
      return "SHARDGRAD_FAKE_CUDA=1 asks for the stand-in";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    default:
      return "an error of the stand-in";
  }
}
const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaError";
}
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

namespace {
std::atomic<bool> queries_fail{false};
}
void sg::cuda::fake::fail_queries(bool fail) { queries_fail = fail; }
void sg::cuda::fake::fail_call(const char* name, int nth, cudaError_t error) {
  const std::lock_guard lock(failure.mutex);
  failure.name = name;
  failure.calls_left = nth;
  failure.error = error;
  any_failure = true;
}
int sg::cuda::fake::streams() { return ::streams; }
int sg::cuda::fake::events() { return ::events; }

namespace {
std::atomic<long> replay_count{0};
}
long sg::cuda::fake::replays() { return replay_count; }

cudaError_t cudaGetDeviceCount(int* count) {
  // Only a test that asks for it gets the stand-in; programs must not take it for a GPU.
  static const bool asked = std::getenv("SHARDGRAD_FAKE_CUDA") != nullptr;
  const char* const fewer = std::getenv("SHARDGRAD_FAKE_CUDA_DEVICES");
  *count = !asked ? 0 : fewer != nullptr ? std::atoi(fewer) : kDevices;
  return asked ? cudaSuccess : keep(cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= kDevices) return keep(cudaErrorInvalidDevice);
  current_device = device;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? 4 : 0;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *total = kTotal;
  *free = kTotal - kOwn - pools[current_device].reserved.load() -
          graph_pools[current_device].reserved.load();
  return cudaSuccess;
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  *pool = &pools[device];
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, std::size_t bytes) {
  pool->reserved = std::max(bytes, pool->used.load());
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAccess(cudaMemPool_t, const cudaMemAccessDesc* access, std::size_t) {
  return keep(access->location.id < kDevices ? cudaSuccess : cudaErrorInvalidDevice);
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  *can = device != peer ? 1 : 0;
  return cudaSuccess;
}
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  *static_cast<std::uint64_t*>(value) =
      attribute == cudaMemPoolAttrUsedMemCurrent ? pool->used.load() : pool->reserved.load();
  return cudaSuccess;
}

// A block begins with its size and its pool; what the caller gets is aligned as CUDA aligns it.
// Contents are filled with a pattern: nothing may count on zeros.
namespace {
struct Head {
  std::size_t bytes;  // rounded up
  FakePool* pool;
};
constexpr std::size_t kHead = 256;
static_assert(sizeof(Head) <= kHead);

Head head_of(const void* data) {
  Head head;
  std::memcpy(&head, static_cast<const char*>(data) - kHead, sizeof head);
  return head;
}
void release(void* data) {
  const Head head = head_of(data);
  head.pool->used -= head.bytes;
  std::free(static_cast<char*>(data) - kHead);
}
}  // namespace

cudaError_t cudaMallocAsync(void** data, std::size_t bytes, cudaStream_t stream) {
  if (const cudaError_t error = failing("cudaMallocAsync")) return error;
  FakePool* const pool = stream->capture != nullptr ? graph_pools : pools;
  const Head head{(bytes + kGrain - 1) / kGrain * kGrain, &pool[current_device]};
  if (bytes > kTotal || !head.pool->take(head.bytes)) return keep(cudaErrorMemoryAllocation);
  char* block = static_cast<char*>(std::aligned_alloc(kHead, kHead + head.bytes));
  if (block == nullptr) {
    head.pool->used -= head.bytes;
    return keep(cudaErrorMemoryAllocation);
  }
  std::memcpy(block, &head, sizeof head);
  *data = block + kHead;
  if (stream->capture != nullptr) stream->capture->blocks[*data] = false;
  enqueue(stream, [to = block + kHead, bytes] { std::memset(to, 0xA5, bytes); });
  return cudaSuccess;
}
cudaError_t cudaFreeAsync(void* data, cudaStream_t stream) {
  if (FakeGraph* const graph = stream->capture) {
    const auto block = graph->blocks.find(data);
    if (block == graph->blocks.end() || block->second) return keep(cudaErrorInvalidValue);
    block->second = true;
    // Until the graph ends.
    enqueue(stream, [data, bytes = head_of(data).bytes] { std::memset(data, 0x5A, bytes); });
    return cudaSuccess;
  }
  enqueue(stream, [data] { release(data); });
  return cudaSuccess;
}
FakeGraph::~FakeGraph() {
  for (const auto& [data, freed] : blocks) release(data);
}

namespace {
std::mutex pinned_mutex;
std::map<const char*, std::size_t> pinned;  // from, bytes

bool is_pinned(const void* data) {
  const std::lock_guard lock(pinned_mutex);
  auto next = pinned.upper_bound(static_cast<const char*>(data));
  if (next == pinned.begin()) return false;
  --next;
  return static_cast<const char*>(data) < next->first + next->second;
}
}  // namespace

cudaError_t cudaHostAlloc(void** data, std::size_t bytes, unsigned) {
  if (const cudaError_t error = failing("cudaHostAlloc")) return error;
  if (const cudaError_t error = breaks_capture()) return error;
  *data = std::aligned_alloc(kHead, (bytes + kHead - 1) / kHead * kHead);
  if (*data == nullptr) return keep(cudaErrorMemoryAllocation);
  std::memset(*data, 0xA5, bytes);
  const std::lock_guard lock(pinned_mutex);
  pinned[static_cast<const char*>(*data)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* data) {
  if (const cudaError_t error = breaks_capture()) return error;
  {
    const std::lock_guard lock(pinned_mutex);
    if (pinned.erase(static_cast<const char*>(data)) == 0) return keep(cudaErrorInvalidValue);
  }
  std::free(data);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (const cudaError_t error = failing("cudaMemcpyAsync")) return error;
  if (stream->capture != nullptr && kind != cudaMemcpyDeviceToDevice)
    return keep(stream->capture->error = cudaErrorStreamCaptureUnsupported);
  enqueue(stream, [=] { std::memmove(to, from, bytes); });
  // Pageable memory: as on a card, the call returns when the CPU's side has been read or written.
  const bool host = kind != cudaMemcpyDeviceToDevice;
  if (host && !is_pinned(kind == cudaMemcpyHostToDevice ? from : to))
    return cudaStreamSynchronize(stream);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  if (const cudaError_t error = failing("cudaMemsetAsync")) return error;
  enqueue(stream, [=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  if (const cudaError_t error = failing("cudaStreamCreateWithFlags")) return error;
  *stream = new FakeStream;
  ++streams;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (stream == nullptr) return keep(cudaErrorInvalidValue);
  delete stream;  // runs what is queued first
  --streams;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream->capture != nullptr)
    return keep(stream->capture->error = cudaErrorStreamCaptureUnsupported);
  if (const cudaError_t error = breaks_capture()) return error;
  const auto recording = std::make_shared<Recording>();
  enqueue(stream, [recording] { recording->finish(); });
  recording->wait();
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (event->capture != nullptr || stream->capture != nullptr) {
    // A stream enters a capture by such a wait, and comes back by one of the first stream.
    if (event->capture == nullptr ||
        (stream->capture != nullptr && stream->capture != event->capture))
      return keep(cudaErrorStreamCaptureIsolation);
    stream->capture = event->capture;
    stream->capture->queued[stream];  // it is part of it now
    if (stream == event->capture->origin) event->capture->joined[event->stream] = event->queued;
    return cudaSuccess;
  }
  if (const auto recording = event->last()) enqueue(stream, [recording] { recording->wait(); });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  if (const cudaError_t error = failing("cudaEventCreateWithFlags")) return error;
  *event = new FakeEvent;
  ++events;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  --events;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->capture = stream->capture;
  if (stream->capture != nullptr) {
    event->stream = stream;
    event->queued = stream->capture->queued[stream];
    return cudaSuccess;
  }
  const auto recording = std::make_shared<Recording>();
  {
    const std::lock_guard lock(event->mutex);
    event->recording = recording;
  }
  enqueue(stream, [recording] { recording->finish(); });
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (event->capture != nullptr) return keep(cudaErrorStreamCaptureUnsupported);
  if (const cudaError_t error = breaks_capture()) return error;
  if (const auto recording = event->last()) recording->wait();
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const auto recording = event->last();
  if (event->capture != nullptr) return keep(cudaErrorStreamCaptureUnsupported);
  if (const cudaError_t error = breaks_capture()) return error;
  if (queries_fail) return keep(cudaErrorInvalidDevice);
  if (recording == nullptr) return cudaSuccess;
  const std::lock_guard lock(recording->mutex);
  return recording->done ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream->capture != nullptr) return keep(cudaErrorStreamCaptureUnsupported);
  stream->capture = new FakeGraph;
  stream->capture->origin = stream;
  own_capture = stream->capture;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  FakeGraph* const captured = stream->capture;
  if (captured == nullptr || captured->origin != stream) return keep(cudaErrorInvalidValue);
  for (const auto& [other, count] : captured->queued) {
    other->capture = nullptr;
    if (other != stream && captured->joined[other] != count)
      captured->error = cudaErrorStreamCaptureUnjoined;
  }
  stream->capture = nullptr;
  own_capture = nullptr;
  const cudaError_t error = captured->error;
  *graph = error == cudaSuccess ? captured : nullptr;
  if (error != cudaSuccess) delete captured;
  return keep(error);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long) {
  if (const cudaError_t error = failing("cudaGraphInstantiate")) return error;
  *executable = new FakeGraph(std::move(*graph));
  graph->blocks.clear();
  return cudaSuccess;
}
cudaError_t cudaDeviceGetGraphMemAttribute(int device, cudaGraphMemAttributeType, void* value) {
  *static_cast<std::uint64_t*>(value) = graph_pools[device].reserved.load();
  return cudaSuccess;
}
cudaError_t cudaDeviceGraphMemTrim(int device) {
  graph_pools[device].reserved = graph_pools[device].used.load();
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  if (const cudaError_t error = failing("cudaGraphLaunch")) return error;
  // Memory that the graph leaves behind could not be allocated a second time.
  for (const auto& [data, freed] : executable->blocks)
    if (!freed) return keep(cudaErrorInvalidValue);
  ++replay_count;
  enqueue(stream, [executable] {
    for (const Work& work : executable->works) work();
  });
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return cudaGraphDestroy(executable);
}
