// The place of the first maximum: the maximum, and then the first place that holds it.
#include "core/cuda/kernels_reduce.h"
#include "core/cuda/reduce_parts.h"

namespace sg::cuda {
namespace {

using kernels::ReduceDims;

template <class T>
struct ArgMax {
  using C = Near<T>;
  const T* x;
  std::int64_t* out;
  ReduceDims kept;
  std::int64_t n, stride;

  template <class Team>
  SG_HD void operator()(const Team& team, std::int64_t r) const {
    std::int64_t from, to;
    locate(kept, r, from, to);
    const T* const row = x + from;
    const C top = team.template fold<C>(
        lowest<C>(), n, [&](std::int64_t i) { return static_cast<C>(row[i * stride]); }, Larger{});
    const std::int64_t place = team.template fold<std::int64_t>(
        n, n,
        [&](std::int64_t i) {
          const C value = static_cast<C>(row[i * stride]);
          return value == top || value != value ? i : n;
        },
        Smaller{});
    if (team.first()) out[to] = place;
  }

 private:
  struct Smaller {
    SG_HD std::int64_t operator()(std::int64_t a, std::int64_t b) const { return a < b ? a : b; }
  };
};

}  // namespace

void argmax(const Launch& on, DType dtype, const ReduceDims& kept, std::int64_t n,
            std::int64_t stride, const void* x, std::int64_t* out) {
  visit(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const ArgMax<T> f{static_cast<const T*>(x), out, kept, n, stride};
    const std::int64_t rows = kept.total();
    // Neighbouring rows' values are neighbours where their own are not.
    for_rows(on, rows, stride == 1 || rows < 4096 ? n : 1, f);
  });
}

}  // namespace sg::cuda
