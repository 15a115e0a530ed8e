// A stable sort by key: CUB's radix sort, which comes with the toolkit.
#include "core/cuda/kernels_embedding.h"

#if defined(__CUDACC__)
#include <cub/device/device_radix_sort.cuh>
#else
#include <numeric>
#include <vector>
#endif

namespace sg::cuda {

#if defined(__CUDACC__)

std::size_t sort_scratch_bytes(const Launch& on, std::int64_t count, int bits) {
  std::size_t bytes = 0;
  check_call(on,
             cub::DeviceRadixSort::SortPairs(
                 nullptr, bytes, static_cast<const std::uint32_t*>(nullptr),
                 static_cast<std::uint32_t*>(nullptr), static_cast<const std::int32_t*>(nullptr),
                 static_cast<std::int32_t*>(nullptr), static_cast<int>(count), 0, bits),
             "the size of CUB\'s sort");
  return bytes;
}

void sort_by_key(const Launch& on, std::int64_t count, int bits, const std::uint32_t* keys,
                 const std::int32_t* places, std::uint32_t* sorted_keys,
                 std::int32_t* sorted_places, void* scratch, std::size_t scratch_bytes) {
  check_call(
      on,
      cub::DeviceRadixSort::SortPairs(scratch, scratch_bytes, keys, sorted_keys, places,
                                      sorted_places, static_cast<int>(count), 0, bits, on.stream),
      "CUB\'s sort");
  check_launch(on);
}

#else

std::size_t sort_scratch_bytes(const Launch&, std::int64_t, int) { return 1; }

void sort_by_key(const Launch& on, std::int64_t count, int bits, const std::uint32_t* keys,
                 const std::int32_t* places, std::uint32_t* sorted_keys,
                 std::int32_t* sorted_places, void*, std::size_t) {
  fake::enqueue(on.stream, [=] {
    const std::uint32_t mask = bits < 32 ? (1u << bits) - 1 : ~0u;
    std::vector<std::int64_t> order(static_cast<std::size_t>(count));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
      return (keys[a] & mask) < (keys[b] & mask);
    });
    for (std::size_t i = 0; i < order.size(); ++i) {
      sorted_keys[i] = keys[order[i]];
      sorted_places[i] = places[order[i]];
    }
  });
}

#endif

}  // namespace sg::cuda
