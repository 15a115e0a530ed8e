// A rank is an object, not a process: its device, memory, threads, random numbers and step. Code
// reaches it through the thread-local current_rank(), so four ranks can be four threads, and two
// engines can live in one process.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "core/device.h"
#include "core/memory.h"
#include "core/step_state.h"

namespace sg {

struct Rank {
  Rank();
  Rank(int index, int world_size, int threads, std::uint64_t seed);

  int index = 0;
  int world_size = 1;
  Device device = kCpu;  ///< where new tensors go unless told otherwise
  int threads = 1;       ///< compute threads of this rank's ops
  std::uint64_t seed = 0;
  std::shared_ptr<Memory> memory = std::make_shared<Memory>();
  Kind kind = Kind::activations;  ///< what new tensors are booked as
  Phase phase = Phase::training;
  std::shared_ptr<Ledger>
      account;  ///< a part of the program's own ledger (an engine's), which books beside the rank's
  std::shared_ptr<Rise> rise;  ///< also told of what new tensors book, until they are gone
  StepState state;
#if SG_FAULTS
  std::map<std::string, std::int64_t, std::less<>>
      fault_counts;  ///< how often each site was passed
#endif

  Ledger& ledger() const { return memory->ledger; }
};

/// The rank that this thread works for; a thread that was given none has a private rank of world
/// size 1.
Rank& current_rank();

/// Makes `rank` the current one in this scope.
class RankScope {
 public:
  explicit RankScope(Rank& rank);
  ~RankScope();
  RankScope(const RankScope&) = delete;
  RankScope& operator=(const RankScope&) = delete;

 private:
  Rank* previous_;
};

/// Sets a variable of the current rank (device, kind, phase, ...) in this scope.
template <class T>
class Scoped {
 public:
  template <class U>
  Scoped(T& variable, U&& value)
      : variable_(variable), previous_(std::exchange(variable, std::forward<U>(value))) {}
  ~Scoped() { variable_ = std::move(previous_); }
  Scoped(const Scoped&) = delete;
  Scoped& operator=(const Scoped&) = delete;

 private:
  T& variable_;
  T previous_;
};

/// Processors this process may use (OMP_NUM_THREADS caps it), at least 1.
int available_cores();

/// Flushes subnormal numbers to zero on this thread and on its compute threads: moments of dead
/// units decay into subnormals, which cost up to 15x in Adam. A mode belongs to a thread, so every
/// rank calls this; on by default in Rank's scope, switched off by SHARDGRAD_DENORMALS=1. Gives
/// OpenMP's default on this thread the same number, fixed (OMP_DYNAMIC would vary it).
void flush_denormals(int threads);

}  // namespace sg
