// Learning-rate schedules: pure functions from the step to a factor of the learning rate.
#pragma once

#include <cstdint>

namespace sg::optim {

/// A value type: copy it freely. Steps count from 1, so factor(s) is what torch.optim.lr_scheduler
/// has in effect at the s-th optimizer.step(), LambdaLR's lambda(s - 1).
class Schedule {
 public:
  /// 1, always.
  Schedule() = default;
  /// The factor of step `step` (>= 1; less throws).
  double factor(std::int64_t step) const;

  /// s / warmup_steps up to step warmup_steps, then 1: LinearLR(start_factor = 1 / warmup_steps,
  /// total_iters = warmup_steps - 1). No step is lost with a rate of 0.
  static Schedule warmup(std::int64_t warmup_steps);
  /// Warm-up as above, then CosineAnnealingLR(T_max = total_steps - warmup_steps) from 1 down to
  /// `floor`, where it stays after total_steps: floor + (1 - floor) (1 + cos(pi t / T_max)) / 2 at
  /// the t-th step after the warm-up, t from 0.
  static Schedule cosine(std::int64_t total_steps, std::int64_t warmup_steps = 0, double floor = 0);

 private:
  std::int64_t warmup_ = 0, total_ = 0;  // total_ 0: no decay
  double floor_ = 1;
};

}  // namespace sg::optim
