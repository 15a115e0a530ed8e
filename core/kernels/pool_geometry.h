// The sizes of a pooling, as kernels see them.
#pragma once

#include <cstdint>

namespace sg::kernels {

struct PoolGeometry {
  std::int64_t n, c, h, w, kh, kw, oh, ow, sh, sw, ph, pw;
  /// Windows share no input element.
  bool disjoint() const { return sh >= kh && sw >= kw; }
};

}  // namespace sg::kernels
