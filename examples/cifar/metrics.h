// The file of --metrics: JSON lines, one a step, and at the end one summary a plan.
#pragma once

#include <cstdint>
#include <fstream>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sg::cifar {

struct Result;

struct StepRecord {
  double loss = 0;  ///< mean over the whole batch
  std::optional<double> grad_norm;
  double lr = 0;
  double seconds = 0;  ///< of the whole step, the getting of the batch included
};

/// The pattern of a loss as fp32, in hex: what `--plan all` and other people's scripts compare.
std::string loss_bits(double loss);

class Metrics {
 public:
  /// Empties the file.
  explicit Metrics(std::string file);
  /// Writes the summaries that are left.
  ~Metrics();

  /// Steps first + 1, first + 2, ... of a plan.
  void write_steps(std::string_view plan, std::int64_t batch_size,
                   std::span<const StepRecord> steps, std::int64_t first);
  /// Keeps the plan's summary for the end of the file.
  void add_summary(const Result& result);
  /// Writes the summaries; an error if anything could not be written.
  void finish();

 private:
  std::string file_;
  std::ofstream out_;
  std::vector<std::string> summaries_;
};

}  // namespace sg::cifar
