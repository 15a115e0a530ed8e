// The training loop: one plan, from the initial weights to the report.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "dist/engine.h"
#include "dist/job.h"
#include "examples/cifar/evaluate.h"
#include "examples/cifar/metrics.h"
#include "examples/cifar/options.h"

namespace sg::cifar {

/// What a run under one plan came to.
struct Result {
  std::vector<StepRecord> steps;  ///< of training, in order
  dist::Report report;            ///< taken after training, before evaluation
  std::uint64_t weights = 0;      ///< digest of every bit of every parameter after training
  std::optional<Accuracy> accuracy;
  bool interrupted = false;

  /// Median of whole steps, the getting of the batch included; 0 before the first.
  double seconds_per_step() const;
};

/// One training run. Holds references: for a call of train() only.
struct Run {
  dist::Job& job;
  const Options& options;
  const dist::Plan& plan;
  const data::Splits& data;
  Metrics* metrics;  ///< may be null
  bool save_weights;
};

/// Trains on the ranks of `run.job`. Rank 0 prints and writes to `metrics`. Errors: those of the
/// ranks; a loss that is not finite.
Result train(const Run& run);

}  // namespace sg::cifar
