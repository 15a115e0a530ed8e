// The command line of cifar.
#pragma once

#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/loader.h"
#include "dist/plan.h"
#include "examples/common/options.h"

namespace sg::cifar {

struct Options : examples::TrainOptions {
  std::string data = "synthetic";
  std::string net = "tutorial";
  std::int64_t epochs = 2;
  bool shuffle = true, evaluate = true, augment = false;
  std::string init, save_weights;  ///< safetensors files, or empty
  bool checkpoint_activations = false;
  std::string schedule = "constant";
  std::int64_t warmup_steps = 0;
  std::int64_t log_interval = 100;
  std::string metrics;  ///< file of JSON lines, or empty

  /// One row of the table, or all.
  std::vector<const dist::Plan*> plans() const;
};

/// What the user wants, checked as far as that goes without the data.
Options parse_options(int argc, char** argv);

/// Optimizer steps of a run: --epochs or --steps, whichever ends first.
std::int64_t steps_to_train(const Options& options, std::int64_t training_images);

data::LoaderOptions loader_options(const Options& options);
dist::EngineOptions engine_options(const Options& options, const dist::Plan& plan,
                                   std::int64_t steps);

/// Checks what depends on the data, and that the files to be written can be.
void check_against(const Options& options, const data::Splits& data);

/// The lines that are printed first.
std::string settings_text(const Options& options, const dist::Job& job, const data::Splits& data,
                          std::int64_t parameters);

}  // namespace sg::cifar
