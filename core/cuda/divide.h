// Division by a number that is fixed for a kernel: a multiplication and a shift instead of the
// dozens of instructions of a division (Granlund and Montgomery, "Division by invariant integers
// using multiplication", PLDI 1994).
#pragma once

#include <cstdint>

#include "core/kernels/host_device.h"

namespace sg::cuda {

class Divider {
 public:
  Divider() = default;
  /// divisor >= 1. What does not fit 32 bits is divided as usual.
  explicit Divider(std::int64_t divisor) : divisor_(divisor) {
    if (divisor >= std::int64_t{1} << 31) {
      shift_ = -1;
      return;
    }
    while ((std::int64_t{1} << shift_) < divisor) ++shift_;
    const std::uint64_t d = static_cast<std::uint64_t>(divisor);
    magic_ =
        static_cast<std::uint32_t>(((std::uint64_t{1} << 32) * ((1ull << shift_) - d)) / d + 1);
  }

  SG_HD std::int64_t quotient(std::int64_t n) const {
    if (shift_ < 0 || static_cast<std::uint64_t>(n) >> 32 != 0) return n / divisor_;
    const std::uint64_t high = (static_cast<std::uint64_t>(n) * magic_) >> 32;
    return static_cast<std::int64_t>((high + static_cast<std::uint64_t>(n)) >> shift_);
  }
  /// n becomes the quotient; the remainder is returned.
  SG_HD std::int64_t split(std::int64_t& n) const {
    const std::int64_t q = quotient(n), r = n - q * divisor_;
    n = q;
    return r;
  }
  SG_HD std::int64_t divisor() const { return divisor_; }

 private:
  std::int64_t divisor_ = 1;
  std::uint32_t magic_ = 1;
  int shift_ = 0;
};

}  // namespace sg::cuda
