#include <algorithm>

#include "core/cuda/ops.h"
#include "core/kernels/random.h"
#include "core/ops.h"
#include "core/parallel.h"
#include "core/rng.h"

namespace sg::ops {

DropoutKey DropoutKey::current(std::uint64_t site) {
  const Rank& rank = current_rank();
  return {rank.seed, site, rank.state};
}

Tensor dropout(const Tensor& x, double p, const DropoutKey& key) {
  SG_CHECK(p >= 0 && p <= 1, "[dropout] the probability must lie in [0, 1], got {}", p);
  SG_CHECK(is_floating(x.dtype()), "[dropout] needs a floating dtype, got {}; cast it first",
           describe(x));
  if (p == 1) return mul(x, 0.0);
  const std::uint64_t site = mix_keys(key.seed, key.site);
  const double threshold = std::min(p * 4294967296.0, 4294967295.0);
  kernels::DropoutMask mask{site, static_cast<std::uint32_t>(threshold), 1.0 / (1.0 - p)};
  if (SG_CUDA && x.is_cuda()) {
    const Tensor y = Tensor::empty_like(x);
    if (x.numel() > 0) cuda::dropout(x, key.state, mask, y);
    return y;
  }
  mask.key = mix_keys(site, static_cast<std::uint64_t>(key.state.step));
  // Elements are numbered in row-major order whatever the strides: a mask of its own where those
  // differ.
  if (!x.is_contiguous() || (x.dtype() != DType::f32 && x.dtype() != DType::f64)) {
    const Tensor ones =
        Tensor::empty(x.shape(), x.dtype() == DType::f64 ? DType::f64 : DType::f32, x.device());
    if (!x.is_meta()) ones.fill(1);
    return mul(x, dropout(ones, p, key).to(x.dtype()));
  }
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  if (x.is_meta() || x.numel() == 0) return y;
  const std::int64_t samples = x.dim_count() > 0 ? x.shape()[0] : 1, n = x.numel() / samples;
  // Units are samples, or pieces of one: counters count four elements.
  constexpr std::int64_t kPiece = 1 << 12;
  const std::int64_t pieces = (n + kPiece - 1) / kPiece;
  visit_floating("dropout", x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    if constexpr (std::is_same_v<T, float> || std::is_same_v<T, double>) {
      const T* from = x.data<T>();
      T* to = y.data<T>();
      parallel_for(
          samples * pieces, std::max<std::int64_t>(kPiece / n, 1),
          [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t unit = begin; unit < end; ++unit) {
              const std::int64_t sample = unit / pieces, start = unit % pieces * kPiece;
              const std::int64_t count = std::min(kPiece, n - start), place = sample * n + start;
              const auto number = static_cast<std::uint64_t>(key.state.first_sample + sample);
              if constexpr (std::is_same_v<T, float>)
                kernels::random_kernels().dropout_f32(from + place, to + place, count, start,
                                                      number, mask);
              else
                kernels::random_kernels().dropout_f64(from + place, to + place, count, start,
                                                      number, mask);
            }
          });
    }
  });
  return y;
}

}  // namespace sg::ops
