// Predictions, from the same table that the code runs on, and what is measured beside them.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/ledger.h"
#include "dist/plan.h"
#include "dist/unit.h"

namespace sg::dist {

/// How often a training micro-batch reads a unit: stretches of forward (recomputation included) and
/// of backward. A stretch ends when another unit is read.
struct UnitReads {
  std::int64_t forward = 1;
  std::int64_t backward = 1;
};

struct Prediction {
  std::array<std::int64_t, kKinds>
      bytes{};  ///< peak of one rank by Kind; gathered is a bound, activations and buffers 0
  std::map<std::string, Traffic, std::less<>> traffic;  ///< of one optimizer step and rank
};

/// Bytes and traffic of `plan` for these units on `ranks` ranks with `accumulate` micro-batches a
/// step. `reads` has one entry a unit; `use_order` the units in order of use in one micro-batch
/// (for the bound on gathered bytes); `state_slots` the optimizer's states an element;
/// `control_words` the 64-bit words a rank sends each step as scalars, by call.
Prediction predict(const Plan& plan, const std::vector<const UnitLayout*>& units,
                   const std::vector<UnitReads>& reads, const std::vector<int>& use_order,
                   int ranks, int accumulate, int state_slots, bool prefetch,
                   const std::vector<std::int64_t>& control_words);

/// What the driver of the rank's GPU says, and what it is made of: `used` is the sum of the others.
struct CardReport {
  std::string name;  ///< "cuda:0"
  int ranks = 1;     ///< that share it
  std::int64_t total = 0, used = 0;
  std::int64_t before = 0;      ///< CUDA's context and other processes, before the first allocation
  std::int64_t ledger = 0;      ///< what its ranks have booked now
  std::int64_t workspaces = 0;  ///< of matrix products, one a rank
  std::int64_t rounding = 0;    ///< what else is in use of the pool: its blocks are of 512 bytes
  std::int64_t graphs = 0;      ///< tensors of captured graphs, which keep their memory
  std::int64_t slack = 0;       ///< freed, and kept by the pool
  std::int64_t since = 0;       ///< come since: kernels, NCCL, other processes
};

/// Kinds whose peak is predicted to the byte, and those that have a prediction at all (gathered's
/// is a bound).
constexpr bool is_exact(Kind kind) {
  return kind == Kind::parameters || kind == Kind::gradients || kind == Kind::optimizer;
}
constexpr bool is_predicted(Kind kind) { return is_exact(kind) || kind == Kind::gathered; }

/// What Engine::report() gives; all but `card` is the same on every rank.
struct Report {
  std::string plan;
  int ranks = 1, accumulate = 1;
  std::int64_t parameters = 0;  ///< elements, without padding
  int units = 0;
  std::int64_t steps = 0;
  struct Bytes {
    std::vector<std::int64_t> predicted, measured;  ///< one a rank
    /// Beyond the engine's own, at the peak of the rank: of parameters, gradients and optimizer
    /// states those of other engines, or of a graph that was made before initialize().
    std::vector<std::int64_t> elsewhere;
  };
  std::array<Bytes, kKinds> bytes;
  struct Flow {
    Traffic predicted;              ///< of one step, of every rank
    std::vector<Traffic> measured;  ///< of one step (the mean, rounded down), one a rank
    std::vector<bool> even;         ///< the rank's total is a whole number of steps' worth
    bool matches(std::size_t rank) const { return even[rank] && measured[rank] == predicted; }
    bool matches() const;
    /// The first rank that does not match, or 0.
    std::size_t odd_rank() const;
    /// What that rank sent in a step.
    Traffic shown() const;
  };
  std::map<std::string, Flow, std::less<>> traffic;
  /// When report() was called, where ranks work on a GPU; of this rank's.
  std::optional<CardReport> card;
  /// Every exact byte and call is as predicted, and gathered is within its bound.
  bool matches() const;
  /// The engine has all parameters, gradients and optimizer states that any rank ever booked.
  bool is_alone() const;
  /// The table for people.
  std::string text() const;
};

}  // namespace sg::dist
