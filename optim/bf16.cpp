// Parameters in bf16: the optimizer's own f32 loop, on a tile at a time.
#include <array>
#include <exception>
#include <mutex>

#include "core/kernels/elementwise.h"
#include "optim/optimizer.h"
#include "optim/spans.h"

namespace sg::optim {
namespace {

// 16 KB of stack, a part of it for one thread: below the size that run() itself would cut again.
constexpr std::int64_t kTile = 4096;
static_assert(kTile % kUpdateBlock == 0 && kTile <= kUpdateGrain);

}  // namespace

void Optimizer::run_in_tiles(std::span<bf16> param, std::span<const float> grad,
                             States<float> state, const Hyper& hyper,
                             const StepValues& values) const {
  std::exception_ptr failure;  // of an optimizer of the user's; OpenMP would end the program
  std::mutex mutex;
  for_each_part(std::ssize(param), [&](std::int64_t begin, std::int64_t end) {
    try {
      std::array<float, kTile> wide;
      std::vector<std::span<float>> tile_state(state.size());
      for (std::int64_t at = begin; at < end; at += kTile) {
        const std::int64_t n = std::min(kTile, end - at);
        const auto first = static_cast<std::size_t>(at), count = static_cast<std::size_t>(n);
        auto* const narrow = reinterpret_cast<std::uint16_t*>(param.data() + at);
        for (std::size_t s = 0; s < state.size(); ++s)
          tile_state[s] = state[s].subspan(first, count);
        kernels::convert_kernels().bf16_to_float(narrow, wide.data(), n);
        run(std::span(wide).first(count), grad.subspan(first, count), tile_state, hyper, values);
        kernels::convert_kernels().float_to_bf16(wide.data(), narrow, n);
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
    }
  });
  if (failure) std::rethrow_exception(failure);
}

}  // namespace sg::optim
