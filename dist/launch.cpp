#include "dist/launch.h"

#if defined(__linux__)
#include <sched.h>
#endif

#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "core/cuda/cuda.h"
#include "dist/comm/nccl.h"
#include "dist/comm/threads.h"

namespace sg::dist {
namespace {

volatile std::sig_atomic_t stop_signals = 0;
std::atomic<std::int64_t> first_stop{0};  // ms
static_assert(std::atomic<std::int64_t>::is_always_lock_free, "a signal handler uses it");

std::int64_t now_ms() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1'000'000;
}

void on_stop_signal(int signal) {
  if (stop_signals == 0) first_stop.store(now_ms());
  stop_signals = 1;
  // One that follows at once is the same wish: a terminal's Ctrl-C reaches the program and its
  // launcher, which passes it on.
  if (now_ms() - first_stop.load() < 100) return;
  // A later one ends the process at once, as if the first had never been caught.
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

}  // namespace

std::chrono::milliseconds default_deadline() {
  const char* text = std::getenv("SHARDGRAD_DEADLINE");
  if (text == nullptr || *text == '\0') return std::chrono::minutes(10);
  double seconds = -1;
  const char* const end = text + std::strlen(text);
  const auto [read, error] = std::from_chars(text, end, seconds);
  SG_CHECK(error == std::errc() && read == end && seconds >= 0 && seconds <= 1e6,
           "[launch] SHARDGRAD_DEADLINE is '{}'; it must be seconds, from 0 (none) to 1000000",
           text);
  // Not 0, which would be none, for the least that is more.
  return std::chrono::milliseconds(static_cast<std::int64_t>(std::ceil(seconds * 1000)));
}

bool deterministic_by_environment() {
  const char* text = std::getenv("SHARDGRAD_DETERMINISTIC");
  return text != nullptr && *text != '\0' && std::strcmp(text, "0") != 0;
}

int default_threads(int ranks) {
  if (!SG_OPENMP) return 1;  // more would run one after another
  return std::max(available_cores() / std::max(ranks, 1), 1);
}

// available_cores() is at most OMP_NUM_THREADS, which is of one process.
int cores_of_affinity() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
#endif
  return available_cores();
}

Executor default_executor(int ranks, int threads, int cores) {
  return ranks > 1 && ranks * (threads + 1) <= cores ? Executor::thread : Executor::inlined;
}

std::chrono::microseconds default_spin(int ranks, int threads, Executor executor, int cores) {
  const int each = executor == Executor::thread && ranks > 1 ? threads + 1 : threads;
  return ranks * each <= cores ? WaitOptions{}.spin : std::chrono::microseconds(0);
}

std::string dump_history(const Comm& comm) {
  const char* folder = std::getenv("SHARDGRAD_LOG_DIR");
  if (folder == nullptr || *folder == '\0')
    return fmt::format("rank {}: its last collectives (all {} with SHARDGRAD_LOG_DIR=FOLDER)\n{}",
                       comm.rank(), Comm::kHistory, comm.history(5));
  const std::string path = fmt::format("{}/collectives.rank{}.txt", folder, comm.rank());
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) return fmt::format("cannot write {}\n", path);
  const std::string text = comm.history();
  std::fwrite(text.data(), 1, text.size(), file);
  std::fclose(file);
  return fmt::format("rank {}: its last collectives are in {}\n", comm.rank(), path);
}

// No thread that computes may run a handler: oneDNN 2.6's AVX-512 matrix products keep values below
// the stack pointer, further than the ABI's 128 bytes, where the kernel puts a handler's frame.
// With a signal every 2 ms 6 of 6 jobs died of a damaged heap, and none where the handler had a
// stack of its own. So all threads block the stop signals but one, which does nothing else.
void install_stop_signals() {
  static bool installed = false;
  if (std::exchange(installed, true)) return;
  std::signal(SIGINT, on_stop_signal);
  std::signal(SIGTERM, on_stop_signal);
  sigset_t all, stops;
  sigfillset(&all);
  sigemptyset(&stops);
  for (const int signal : {SIGINT, SIGTERM}) sigaddset(&stops, signal);
  std::thread([all, stops] {
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    pthread_sigmask(SIG_UNBLOCK, &stops, nullptr);
    for (;;) pause();
  }).detach();
  // What this thread starts from here on inherits it; compute threads that it has already do not.
#if SG_OPENMP
#pragma omp parallel
#endif
  pthread_sigmask(SIG_BLOCK, &stops, nullptr);
}

bool stop_signalled() { return stop_signals > 0; }

void launch_ranks(int ranks, const std::function<void(Rank&)>& fn, const LaunchOptions& options) {
  SG_CHECK(ranks >= 1, "[launch] needs at least 1 rank, got {}", ranks);
  SG_CHECK(options.threads >= 0,
           "[launch] threads a rank must be at least 1 (0: automatic), got {}", options.threads);
  const int threads = options.threads > 0 ? options.threads : default_threads(ranks);
  const Executor executor = options.executor.value_or(default_executor(ranks, threads));
  const bool gpu_each = options.device.is_cuda() && options.backend == Backend::nccl;
  const std::string nccl = gpu_each ? (gpu_of_thread(0, ranks), nccl_id()) : std::string();
  ThreadWorld world(ranks,
                    {.deadline = options.deadline, .spin = default_spin(ranks, threads, executor)});
  // Ranks outlive all threads: what a failed rank has posted stays readable until every peer has
  // left.
  std::vector<std::unique_ptr<Rank>> contexts;
  std::vector<std::unique_ptr<Comm>> comms;
  for (int r = 0; r < ranks; ++r) {
    contexts.push_back(std::make_unique<Rank>(r, ranks, threads, options.seed));
    contexts.back()->device = gpu_each ? gpu_of_thread(r, ranks) : options.device;
    comms.push_back(std::make_unique<Comm>(world.transport(r), executor));
  }
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(ranks));
  const auto failed = [&](int r, const std::exception_ptr& error) {
    errors[static_cast<std::size_t>(r)] = error;
    try {
      std::rethrow_exception(error);
    } catch (const std::exception& e) {
      world.poison(r, e.what());
    } catch (...) {
      world.poison(r, "an exception that is no std::exception");
    }
  };
  const auto run = [&](int r) {
    Rank& rank = *contexts[static_cast<std::size_t>(r)];
    Comm& comm = *comms[static_cast<std::size_t>(r)];
    const RankScope rank_scope(rank);
    const CommScope comm_scope(comm);
    try {
      if (gpu_each)
        use_nccl(comm, {.id = nccl,
                        .device = rank.device,
                        .deterministic = options.deterministic,
                        .deadline = options.deadline,
                        .one_process = true});
      fn(rank);
      comm.leave();
      // What it hands out is there, and what a kernel has found wrong is known, when it ends.
      if (rank.device.is_cuda()) cuda::synchronize(rank.device);
    } catch (...) {
      failed(r, std::current_exception());
    }
  };
  // Ranks may read what this thread has queued before.
  if (thread_rank() != nullptr && thread_rank()->memory->cuda != nullptr)
    cuda::synchronize(thread_rank()->device);
  std::vector<std::thread> pool;
  try {
    for (int r = 0; r < ranks; ++r) pool.emplace_back(run, r);
  } catch (...) {  // the system has no more threads: those that run must not wait for the rest
    failed(static_cast<int>(pool.size()), std::current_exception());
  }
  for (std::thread& thread : pool) thread.join();
  // All comm threads end before anything is freed that they might read.
  for (const auto& comm : comms) comm->stop();
  const auto [first, cause] = world.first_failure();
  if (first < 0) return;
  if (ranks > 1 && std::getenv("SHARDGRAD_LOG_DIR") != nullptr)
    for (const auto& comm : comms) dump_history(*comm);
  const std::exception_ptr& error = errors[static_cast<std::size_t>(first)];
  if (error == nullptr)  // what watches its GPU told it, and the rank caught it
    fail("[rank {}] {}", first, cause);
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    fail("[rank {}] {}", first, e.what());
  }
}

}  // namespace sg::dist
