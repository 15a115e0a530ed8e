#include "core/shape.h"

#include <algorithm>

namespace sg {

std::int64_t numel(const Shape& shape) {
  std::int64_t n = 1;
  for (std::int64_t size : shape) n *= size;
  return n;
}

Strides contiguous_strides(const Shape& shape) {
  Strides strides = Dims::filled(shape.size(), 1);
  for (int i = shape.size() - 2; i >= 0; --i)
    strides[i] = strides[i + 1] * std::max<std::int64_t>(shape[i + 1], 1);
  return strides;
}

Strides channels_last_strides(const Shape& shape) {
  SG_CHECK(shape.size() == 4, "[channels_last] needs 4 dimensions [N, C, H, W], got {}", shape);
  const std::int64_t c = shape[1], h = shape[2], w = shape[3];
  return {h * w * c, 1, w * c, c};
}

Shape broadcast_shapes(std::string_view op, const Shape& a, const Shape& b) {
  if (a == b) return a;
  const int rank = std::max(a.size(), b.size());
  Shape result = Dims::filled(rank, 1);
  for (int i = 1; i <= rank; ++i) {
    const std::int64_t sa = i <= a.size() ? a[a.size() - i] : 1;
    const std::int64_t sb = i <= b.size() ? b[b.size() - i] : 1;
    SG_CHECK(sa == sb || sa == 1 || sb == 1,
             "[{}] shapes {} and {} do not broadcast: sizes {} and {} at dimension -{}; "
             "sizes must be equal or 1",
             op, a, b, sa, sb, i);
    result[rank - i] = sa == 1 ? sb : sa;
  }
  return result;
}

int normalize_dim(std::string_view op, std::int64_t dim, int rank) {
  const std::int64_t wrapped = dim < 0 ? dim + rank : dim;
  SG_CHECK(wrapped >= 0 && wrapped < rank, "[{}] dimension {} is outside [-{}, {})", op, dim, rank,
           rank);
  return static_cast<int>(wrapped);
}

std::string to_string(const Dims& dims) {
  std::string text = "[";
  for (int i = 0; i < dims.size(); ++i) text += fmt::format("{}{}", i ? ", " : "", dims[i]);
  return text + "]";
}

}  // namespace sg
