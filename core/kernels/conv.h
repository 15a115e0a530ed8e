// The sizes of a convolution, as kernels see them.
#pragma once

#include <cstdint>

namespace sg::kernels {

struct ConvGeometry {
  std::int64_t n, c, h, w;  // input
  std::int64_t o, kh, kw;   // weight [o, c / groups, kh, kw]
  std::int64_t oh, ow;      // output [n, o, oh, ow]
  std::int64_t sh, sw, ph, pw, dh, dw, groups;
  bool operator==(const ConvGeometry&) const = default;
};

/// Any strides: element (n, c, y, x) is at data + n * sn + c * sc + y * sy + x * sx.
template <class T>
struct ImageView {
  T* data = nullptr;
  std::int64_t sn = 0, sc = 0, sy = 0, sx = 0;
  T* image(std::int64_t n) const { return data + n * sn; }
};

}  // namespace sg::kernels
