// What the kernels of reduce.cu and argmax.cu share.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/kernels/reduce_plan.h"
#include "core/scalar.h"

namespace sg::cuda {

// What values of T are folded in: a few neighbours in Near, all of them in Far.
template <class T>
using Near = std::conditional_t<std::is_integral_v<T>, std::int64_t, compute_t<T>>;
template <class T>
using Far = std::conditional_t<std::is_integral_v<T>, std::int64_t, double>;

template <class A>
constexpr A lowest() {
  if constexpr (std::is_integral_v<A>)
    return INT64_MIN;
  else
    return -A(__builtin_huge_val());
}

// Division of 64-bit numbers is a long routine on a GPU; most indices need 32 bits.
SG_HD void divide(std::int64_t a, std::int64_t b, std::int64_t& quotient, std::int64_t& rest) {
  if (((a | b) >> 32) == 0) {
    const auto n = static_cast<std::uint32_t>(a), d = static_cast<std::uint32_t>(b);
    quotient = n / d;
    rest = n % d;
  } else {
    quotient = a / b;
    rest = a % b;
  }
}

SG_HD void locate(const kernels::ReduceDims& dims, std::int64_t index, std::int64_t& from,
                  std::int64_t& to) {
  from = to = 0;
  for (int d = dims.count - 1; d >= 0; --d) {
    std::int64_t next = 0, at = index;
    if (d > 0) divide(index, dims.size[d], next, at);
    from += at * dims.from[d];
    to += at * dims.to[d];
    index = next;
  }
}

}  // namespace sg::cuda
