#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "core/check.h"

namespace sg::nn {

/// Height and width: one number for both, or {height, width}.
struct Size2 {
  std::int64_t height, width;
  Size2(std::int64_t both) : height(both), width(both) {}  // NOLINT: 3 is a 3x3 kernel
  Size2(std::int64_t height_, std::int64_t width_) : height(height_), width(width_) {}
  operator std::array<std::int64_t, 2>() const { return {height, width}; }  // NOLINT
};

/// Throws unless both are at least `least`: "[Conv2d] stride must be at least 1, got [0, 1]".
inline void check_size(std::string_view layer, std::string_view what, Size2 size,
                       std::int64_t least) {
  SG_CHECK(size.height >= least && size.width >= least, "[{}] {} must be at least {}, got [{}, {}]",
           layer, what, least, size.height, size.width);
}

}  // namespace sg::nn
