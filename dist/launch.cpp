#include "dist/launch.h"

#if defined(__linux__)
#include <sched.h>
#endif

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/cuda/cuda.h"
#include "dist/comm/nccl.h"
#include "dist/comm/threads.h"
#include "dist/say.h"

namespace sg::dist {

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

void dump_history(const Comm& comm) {
  const std::string all = comm.history();
  if (all.empty()) return;
  const char* folder = std::getenv("SHARDGRAD_LOG_DIR");
  const bool given = folder != nullptr && *folder != '\0';
  std::string why = fmt::format("all {} with SHARDGRAD_LOG_DIR=FOLDER", Comm::kHistory);
  if (given) {
    const std::string path = fmt::format("{}/collectives.rank{}.txt", folder, comm.rank());
    std::FILE* file = std::fopen(path.c_str(), "w");
    const bool whole =
        file != nullptr && std::fwrite(all.data(), 1, all.size(), file) == all.size();
    if (file != nullptr && std::fclose(file) == 0 && whole)
      return say_error("rank {}: its last collectives are in {}\n", comm.rank(), path);
    why = fmt::format("cannot write {}: {}", path, std::strerror(errno));
  }
  say_error("rank {}: its last collectives ({})\n{}", comm.rank(), why, comm.history(5));
}

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
      cuda::synchronize();
    } catch (...) {
      failed(r, std::current_exception());
    }
  };
  // Ranks may read what this thread has queued before.
  if (thread_rank() != nullptr) cuda::synchronize();
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
  if (ranks > 1 && options.dump_collectives)
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
