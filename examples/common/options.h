// The command line that the example programs share.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "dist/engine.h"
#include "dist/job.h"
#include "optim/optimizer.h"

namespace CLI {
class App;
}

namespace sg::examples {

/// What a user can mend: bad usage or bad input. Ends the program with status 2; every other error
/// with 1.
class InputError : public Error {
 public:
  using Error::Error;
};

inline constexpr int kInputErrorStatus = 2;
/// A run that Ctrl-C ended early, after its clean-up: what shells expect, 128 + SIGINT.
inline constexpr int kInterruptedStatus = 130;

/// Calls f; its errors become InputErrors. For everything between the command line and the first
/// training step.
template <class F>
auto checked_input(F&& f) {
  try {
    return f();
  } catch (const Error& error) {
    throw InputError(error.what());
  }
}

/// Options of every example. Names and defaults are those of `--help`.
struct TrainOptions {
  int ranks = 1;
  std::string plan = "ddp";
  int accumulate = 1;
  std::int64_t batch_size = 0;  ///< of one optimizer step; 16 a micro-batch unless given
  std::optional<std::int64_t> steps = {};
  int threads = 0;  ///< of a rank; cores / ranks unless given
  std::uint64_t seed = 0;
  std::string optimizer = "adam";
  double lr = 1e-3;
  std::optional<double> momentum = {}, weight_decay = {};
  double clip_norm = 0;
  std::string executor = "auto";
  std::string device = {};  ///< "cpu" or "cuda"; cuda where there is one unless given
  std::string why_cpu =
      {};  ///< what keeps this process from the GPUs that it sees, if no device was given
  std::string dtype = "f32";
  bool prefetch = true, graphs = true;
  std::string command_line = {};  ///< the same in every process of a job
  bool speaks = true;             ///< false in the processes of ranks above 0, which print nothing

  std::int64_t micro_batch() const { return batch_size / (std::int64_t{ranks} * accumulate); }
  /// Of parameters and inputs.
  DType element_type() const;
  /// Of the loss, to which outputs are cast: f32 for bf16, whose losses would have two digits.
  DType loss_type() const;
};

/// The plans of the table by name; where a program can train one after the other, also `all`.
enum class Plans { one, all_too };

/// Adds the shared options to `app`.
void add_options(CLI::App& app, TrainOptions& options, Plans plans = Plans::one);
/// Parses; --help prints and exits. Then checks the shared options and fills in what depends on
/// others.
void parse(CLI::App& app, TrainOptions& options, int argc, char** argv, Plans plans = Plans::one);

optim::OptimizerPtr make_optimizer(const TrainOptions& options);
dist::LaunchOptions launch_options(const TrainOptions& options);
/// Of `plan`, which is one row of the table.
dist::EngineOptions engine_options(const TrainOptions& options, std::string_view plan);

/// `value` if it is one of `choices`; else an error that names the nearest of them.
void check_choice(std::string_view option, std::string_view value,
                  std::span<const std::string_view> choices);

/// Runs a program's body and turns exceptions into exit statuses and one line on standard error.
int run_program(std::string_view name, const std::function<int()>& body);

}  // namespace sg::examples
