#include "core/kernels/fold.h"

#include "core/kernels/simd.h"

namespace sg::kernels::SG_ISA {
namespace {

constexpr int kMost = 8;  // sources of one pass: beyond, their streams outnumber the prefetchers
constexpr int kUnroll = 4;
constexpr std::int64_t kTileBytes = 8192;  // a running sum that stays in the first-level cache

// All loads of a place come before its store, so `out` may be any of the sources.
template <int Count, class T>
void pass(T* out, const T* const* sources, std::int64_t n) {
  const T* from[Count];
  for (int s = 0; s < Count; ++s) from[s] = sources[s];
  constexpr std::int64_t kStep = kUnroll * kLanes<T>;
  std::int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    Vector<T> sum[kUnroll];
    for (int u = 0; u < kUnroll; ++u) sum[u] = load(from[0] + i + u * kLanes<T>);
    for (int s = 1; s < Count; ++s)
      for (int u = 0; u < kUnroll; ++u) sum[u] += load(from[s] + i + u * kLanes<T>);
    for (int u = 0; u < kUnroll; ++u) store(out + i + u * kLanes<T>, sum[u]);
  }
  for (; i < n; ++i) {
    T sum = from[0][i];
    for (int s = 1; s < Count; ++s) sum += from[s][i];
    out[i] = sum;
  }
}

template <class T>
void one_pass(T* out, const T* const* sources, std::int64_t count, std::int64_t n) {
  switch (count) {
    case 1:
      return pass<1>(out, sources, n);
    case 2:
      return pass<2>(out, sources, n);
    case 3:
      return pass<3>(out, sources, n);
    case 4:
      return pass<4>(out, sources, n);
    case 5:
      return pass<5>(out, sources, n);
    case 6:
      return pass<6>(out, sources, n);
    case 7:
      return pass<7>(out, sources, n);
    default:
      return pass<8>(out, sources, n);
  }
}

template <class T>
void sum(T* out, const T* const* sources, std::int64_t count, std::int64_t n) {
  if (count <= kMost) return one_pass(out, sources, count, n);
  // The sum so far goes to memory of its own: `out` may be a source that is still to be read.
  constexpr std::int64_t kTile = kTileBytes / static_cast<std::int64_t>(sizeof(T));
  alignas(64) T so_far[kTile];
  for (std::int64_t tile = 0; tile < n; tile += kTile) {
    const std::int64_t size = n - tile < kTile ? n - tile : kTile;
    const T* from[kMost];
    for (int s = 0; s < kMost; ++s) from[s] = sources[s] + tile;
    pass<kMost>(so_far, from, size);
    for (std::int64_t done = kMost; done < count;) {
      const std::int64_t next = count - done < kMost - 1 ? count - done : kMost - 1;
      from[0] = so_far;
      for (std::int64_t s = 0; s < next; ++s) from[s + 1] = sources[done + s] + tile;
      done += next;
      one_pass(done == count ? out + tile : so_far, from, next + 1, size);
    }
  }
}

}  // namespace

const FoldKernels& fold_kernels_table() {
  static const FoldKernels table{{sum<float>}, {sum<double>}};
  return table;
}

}  // namespace sg::kernels::SG_ISA
