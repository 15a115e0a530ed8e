// What a GPU's memory and arithmetic give, and what AdamW and matrix products make of it:
//
//   gpu_bench [--rounds N]
//
// prints one JSON object: seconds (medians of N rounds, each of several launches between two waits
// for the device), and what was moved or computed. bench/gpu.py runs it beside PyTorch.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "core/cuda/cuda.h"
#include "core/ops.h"
#include "optim/adam.h"
#include "optim/update.h"

namespace sg {
namespace {

using Clock = std::chrono::steady_clock;

// Median seconds of one call.
template <class F>
double median(int rounds, int calls, F&& f) {
  for (int i = 0; i < 3; ++i) f();
  std::vector<double> times;
  for (int r = 0; r < rounds; ++r) {
    cuda::synchronize();
    const auto start = Clock::now();
    for (int i = 0; i < calls; ++i) f();
    cuda::synchronize();
    times.push_back(std::chrono::duration<double>(Clock::now() - start).count() / calls);
  }
  std::nth_element(times.begin(), times.begin() + rounds / 2, times.end());
  return times[static_cast<std::size_t>(rounds / 2)];
}

nlohmann::json measure(int rounds) {
  nlohmann::json result;
  {
    const std::int64_t n = std::int64_t{1} << 28;  // 1 GiB
    const Tensor from = Tensor::zeros({n}), to = Tensor::empty({n});
    const double seconds = median(rounds, 4, [&] { to.copy_from(from); });
    result["copy"] = {{"seconds", seconds}, {"bytes", 2 * from.bytes()}};
  }
  {
    const std::int64_t n = 124'000'000;
    const Tensor param = Tensor::full({n}, 0.1), grad = Tensor::full({n}, 0.01);
    const std::vector<Tensor> states{Tensor::zeros({n}), Tensor::zeros({n})};
    const auto adamw = optim::adamw();
    optim::Update update(adamw, param, states, {{0, n, adamw->defaults()}});
    optim::StepValues values;
    const double seconds = median(rounds, 4, [&] {
      update.set(values);
      update.run(grad);
      ++values.step;
    });
    result["adamw"] = {{"seconds", seconds}, {"bytes", 28 * n}, {"parameters", n}};
  }
  for (const DType dtype : {DType::bf16, DType::f32}) {
    const std::int64_t n = 8192;
    const Tensor a = Tensor::full({n, n}, 0.01, dtype), b = Tensor::full({n, n}, 0.01, dtype);
    const Tensor out = Tensor::empty({n, n}, dtype);
    const double seconds = median(rounds, 4, [&] { ops::matmul_into(out, a, b); });
    result[fmt::format("matmul_{}", name_of(dtype))] = {{"seconds", seconds},
                                                        {"operations", 2 * n * n * n}};
  }
  return result;
}

}  // namespace
}  // namespace sg

int main(int argc, char** argv) {
  int rounds = 15;
  if (argc == 3 && std::string_view(argv[1]) == "--rounds") rounds = std::atoi(argv[2]);
  if (rounds < 1 || (argc != 1 && argc != 3)) {
    fmt::print(stderr, "usage: gpu_bench [--rounds N]\n");
    return 2;
  }
  if (sg::cuda::device_count() == 0) {
    fmt::print(stderr, "gpu_bench: no GPU to measure: {}\n", sg::cuda::why_none());
    return 2;
  }
  sg::current_rank().device = sg::cuda_device(0);
  fmt::print("{}\n", sg::measure(rounds).dump(2));
  return 0;
}
