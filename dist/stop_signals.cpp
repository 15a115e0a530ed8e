#include "dist/stop_signals.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <thread>

namespace sg::dist {
namespace {

std::atomic<bool> installed{false};
// Written by the thread that takes the signals, read by those that compute.
std::atomic<bool> stopped{false};
std::atomic<std::int64_t> first_stop{0};  // ms
static_assert(std::atomic<bool>::is_always_lock_free &&
                  std::atomic<std::int64_t>::is_always_lock_free,
              "a signal handler uses them");

std::int64_t now_ms() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1'000'000;
}

void on_stop_signal(int signal) {
  if (!stopped.load()) first_stop.store(now_ms());
  stopped.store(true);
  // One that follows at once is the same wish: a terminal's Ctrl-C reaches the program and its
  // launcher, which passes it on.
  if (now_ms() - first_stop.load() < 100) return;
  // A later one ends the process at once, as if the first had never been caught.
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

}  // namespace

// No thread that computes may run a handler: oneDNN 2.6's AVX-512 matrix products keep values below
// the stack pointer, further than the ABI's 128 bytes, where the kernel puts a handler's frame.
// With a signal every 2 ms 6 of 6 jobs died of a damaged heap, and none where the handler had a
// stack of its own. So all threads block the stop signals but one, which does nothing else.
void install_stop_signals() {
  if (installed.exchange(true)) return;
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

bool stop_signalled() { return stopped.load(); }

bool stop_signalled_within(std::chrono::milliseconds patience) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point end = Clock::now() + patience;
  while (installed && !stopped && Clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  return stopped;
}

}  // namespace sg::dist
