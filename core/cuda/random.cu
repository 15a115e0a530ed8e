// Dropout on the GPU: the same masks as the CPU's, whatever the layout.
#include "core/cuda/divide.h"
#include "core/cuda/kernels_random.h"
#include "core/cuda/row.h"
#include "core/rng.h"

namespace sg::cuda {
namespace {

template <class T>
SG_HD T drop(T x, std::uint32_t word, const kernels::DropoutMask& mask) {
  using C = compute_t<T>;
  return static_cast<T>(word < mask.threshold ? C(0)
                                              : static_cast<C>(x) * static_cast<C>(mask.scale));
}

// A captured kernel finds the step in memory, else it was given it.
struct Draws {
  kernels::DropoutMask mask;
  StepState state;

  SG_HD decltype(philox(0, 0, 0)) words(std::int64_t four, std::int64_t sample) const {
    const StepState now = state.replayed != nullptr ? *state.replayed : state;
    return philox(mix_keys(mask.key, static_cast<std::uint64_t>(now.step)),
                  static_cast<std::uint64_t>(four),
                  static_cast<std::uint64_t>(now.first_sample + sample));
  }
};

// Unit (sample, four of its elements, which share a counter).
template <class T, bool kPacked>
struct Dropout {
  const T* x;
  T* y;
  std::int64_t n;
  Divider fours;  // of a sample
  Draws draws;

  struct alignas(4 * sizeof(T)) Four {
    T values[4];
  };

  SG_HD void operator()(std::int64_t unit) const {
    std::int64_t sample = unit;
    const std::int64_t four = fours.split(sample);
    const auto words = draws.words(four, sample);
    const std::int64_t at = sample * n + 4 * four;
    if constexpr (kPacked) {
      const Four from = *reinterpret_cast<const Four*>(x + at);
      Four to;
      for (int j = 0; j < 4; ++j) to.values[j] = drop(from.values[j], words[j], draws.mask);
      *reinterpret_cast<Four*>(y + at) = to;
    } else {
      for (int j = 0; j < 4 && 4 * four + j < n; ++j)
        y[at + j] = drop(x[at + j], words[j], draws.mask);
    }
  }
};

// In memory order, for coalesced access: three of four random words are drawn in vain.
template <class T>
struct StridedDropout {
  const T* x;
  T* y;
  Divider n;
  Draws draws;
  Walk<3> walk;

  SG_HD void operator()(std::int64_t i) const {
    std::int64_t at[3];
    walk.locate(i, at);
    std::int64_t sample = at[2];
    const std::int64_t element = n.split(sample);
    const auto words = draws.words(element / 4, sample);
    const int w = static_cast<int>(element % 4);
    // Not words[w]: an array that is indexed at run time is kept in memory.
    const std::uint32_t word = w == 0 ? words[0] : w == 1 ? words[1] : w == 2 ? words[2] : words[3];
    y[at[0]] = drop(x[at[1]], word, draws.mask);
  }
};

}  // namespace

void dropout(const Launch& on, DType dtype, std::int64_t samples, std::int64_t n,
             const StepState& state, const kernels::DropoutMask& mask, const void* x, void* y) {
  visit_floating(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const std::int64_t fours = (n + 3) / 4, units = samples * fours;
    const T* from = static_cast<const T*>(x);
    T* to = static_cast<T*>(y);
    const auto bits = reinterpret_cast<std::uintptr_t>(x) | reinterpret_cast<std::uintptr_t>(y);
    if (n % 4 == 0 && bits % (4 * sizeof(T)) == 0)
      for_each(on, units, Dropout<T, true>{from, to, n, Divider(fours), {mask, state}});
    else
      for_each(on, units, Dropout<T, false>{from, to, n, Divider(fours), {mask, state}});
  });
}

void dropout_strided(const Launch& on, DType dtype, std::int64_t count, std::int64_t n,
                     const StepState& state, const kernels::DropoutMask& mask, const Walk<3>& walk,
                     const void* x, void* y) {
  visit_floating(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    for_each(on, count,
             StridedDropout<T>{
                 static_cast<const T*>(x), static_cast<T*>(y), Divider(n), {mask, state}, walk});
  });
}

}  // namespace sg::cuda
