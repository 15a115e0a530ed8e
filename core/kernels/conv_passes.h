// What the passes of the direct and of Winograd's convolution share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <vector>

#include "core/kernels/conv.h"
#include "core/kernels/conv_direct.h"
#include "core/rank.h"
#include "core/tensor.h"

namespace sg::kernels {

inline constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

inline Tensor scratch(std::int64_t floats) {
  Scoped kind(current_rank().kind, Kind::buffers);
  return Tensor::empty({std::max<std::int64_t>(floats, 1)}, DType::f32, kCpu);
}

// A bias's gradient from the sums of each part of the images, [parts][channels], added in the order
// of the parts.
inline void add_parts(const std::vector<double>& sums, std::int64_t channels, float* db) {
  const std::int64_t parts = std::ssize(sums) / std::max<std::int64_t>(channels, 1);
  for (std::int64_t c = 0; c < channels; ++c) {
    double total = 0;
    for (std::int64_t part = 0; part < parts; ++part)
      total += sums[static_cast<std::size_t>(part * channels + c)];
    db[c] = static_cast<float>(total);
  }
}

// Lanes are taken in groups of two vectors, the last of one if that is enough.
struct Groups {
  std::int64_t lanes, vector;
  explicit Groups(std::int64_t lanes_) : lanes(lanes_), vector(conv_direct().lanes) {}
  std::int64_t width(std::int64_t first) const {
    return lanes - first > vector ? 2 * vector : vector;
  }
  std::int64_t count() const { return divide_up(lanes, 2 * vector); }
  std::int64_t padded() const { return divide_up(lanes, vector) * vector; }
  // f(first lane, width); widths before `first` add up to it.
  template <class F>
  void each(F&& f) const {
    for (std::int64_t first = 0; first < lanes; first += width(first)) f(first, width(first));
  }
};

// What a loop over images will read next, handed out in slices to the kernel calls that come
// before.
class Ahead {
 public:
  Ahead(std::int64_t last_image, std::int64_t calls) : last_(last_image), calls_(calls) {}
  // Image n of a view of c channels of h x w, if it is one block of memory.
  void add(ImageView<const float> view, std::int64_t n, std::int64_t c, std::int64_t h,
           std::int64_t w) {
    const bool dense = view.sn == c * h * w && (view.sc == 1 || view.sx == 1);
    if (view.data == nullptr || n >= last_ || !dense) return;
    from_[ranges_] = reinterpret_cast<const char*>(view.image(n));
    lines_[ranges_++] = divide_up(view.sn * 4, 64);
  }
  ConvPrefetch slice() {
    ConvPrefetch next;
    for (int r = 0; r < ranges_; ++r) {
      const std::int64_t first = lines_[r] * call_ / calls_,
                         last = lines_[r] * (call_ + 1) / calls_;
      next.from[r] = from_[r] + first * 64;
      next.lines[r] = last - first;
    }
    call_ = std::min(call_ + 1, calls_ - 1);
    return next;
  }

 private:
  std::int64_t last_, calls_, call_ = 0;
  int ranges_ = 0;
  const char* from_[ConvPrefetch::kRanges] = {};
  std::int64_t lines_[ConvPrefetch::kRanges] = {};
};

}  // namespace sg::kernels
