// Shared by the microbenchmarks: what is measured runs in turns with a limit of the machine, and
// the medians are compared.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

namespace sg::bench {

using Clock = std::chrono::steady_clock;

inline double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

template <class F>
double seconds(F&& f) {
  const auto start = Clock::now();
  f();
  return since(start);
}

/// The value below which `part` of the values are; 0.5 is the median.
inline double quantile(std::vector<double> values, double part) {
  const double place = part * static_cast<double>(values.size() - 1);
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(place + 0.5);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

/// Counters NAME, limit_NAME (rates: `amount` a second), ratio and ratio_best. `times` and `limits`
/// are seconds of the same amount of work.
inline void report(benchmark::State& state, const std::string& name, double amount,
                   const std::vector<double>& times, const std::vector<double>& limits) {
  state.counters[name] = amount / quantile(times, 0.5);
  state.counters["limit_" + name] = amount / quantile(limits, 0.5);
  state.counters["ratio"] = quantile(limits, 0.5) / quantile(times, 0.5);
  state.counters["ratio_best"] = quantile(limits, 0.1) / quantile(times, 0.1);
}

}  // namespace sg::bench
