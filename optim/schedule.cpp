#include "optim/schedule.h"

#include <cmath>
#include <numbers>

#include "core/check.h"

namespace sg::optim {

Schedule Schedule::warmup(std::int64_t warmup_steps) {
  SG_CHECK(warmup_steps >= 0, "[schedule] warmup_steps must be >= 0, got {}", warmup_steps);
  Schedule schedule;
  schedule.warmup_ = warmup_steps;
  return schedule;
}

Schedule Schedule::cosine(std::int64_t total_steps, std::int64_t warmup_steps, double floor) {
  SG_CHECK(total_steps >= 1, "[schedule] total_steps must be >= 1, got {}", total_steps);
  SG_CHECK(warmup_steps >= 0 && warmup_steps <= total_steps,
           "[schedule] warmup_steps must be in [0, total_steps = {}], got {}", total_steps,
           warmup_steps);
  SG_CHECK(floor >= 0 && floor <= 1, "[schedule] floor must be in [0, 1], got {}", floor);
  Schedule schedule = warmup(warmup_steps);
  schedule.total_ = total_steps;
  schedule.floor_ = floor;
  return schedule;
}

double Schedule::factor(std::int64_t step) const {
  SG_CHECK(step >= 1, "[schedule] steps count from 1, got {}", step);
  if (step <= warmup_) return static_cast<double>(step) / static_cast<double>(warmup_);
  if (total_ == 0) return 1;
  if (step > total_) return floor_;
  const double t = static_cast<double>(step - 1 - warmup_);
  const double length = static_cast<double>(total_ - warmup_);  // > t >= 0
  return floor_ + (1 - floor_) * (1 + std::cos(std::numbers::pi * t / length)) / 2;
}

}  // namespace sg::optim
