#include <algorithm>

#include "core/ops.h"

namespace sg::ops {

Tensor cat(std::span<const Tensor> xs, std::int64_t dim) {
  SG_CHECK(!xs.empty(), "[cat] needs at least one tensor");
  const int d = normalize_dim("cat", dim, xs[0].dim_count());
  Shape shape = xs[0].shape();
  shape[d] = 0;
  for (const Tensor& x : xs) {
    check_same_dtype("cat", xs[0], x);
    bool fits = x.dim_count() == shape.size();
    for (int i = 0; fits && i < shape.size(); ++i) fits = i == d || x.shape()[i] == shape[i];
    SG_CHECK(fits, "[cat] shapes {} and {} differ outside dimension {}", xs[0].shape(), x.shape(),
             d);
    shape[d] += x.shape()[d];
  }
  const bool last =
      std::all_of(xs.begin(), xs.end(), [](const Tensor& x) { return x.is_channels_last(); });
  const Tensor out =
      Tensor::empty_strided(shape, last ? channels_last_strides(shape) : contiguous_strides(shape),
                            xs[0].dtype(), xs[0].device());
  std::int64_t start = 0;
  for (const Tensor& x : xs) {
    out.slice(d, start, x.shape()[d]).copy_from(x);
    start += x.shape()[d];
  }
  return out;
}

Tensor pad(const Tensor& x, const Dims& widths, double value) {
  SG_CHECK(widths.size() % 2 == 0 && widths.size() <= 2 * x.dim_count(),
           "[pad] widths {} are not a (left, right) pair for each of the last dimensions of {}",
           widths, x.shape());
  Shape shape = x.shape();
  Tensor from = x;
  Dims start = Dims::filled(shape.size(), 0);
  for (int p = 0; p < widths.size() / 2; ++p) {
    const int d = shape.size() - 1 - p;
    const std::int64_t left = widths[2 * p], right = widths[2 * p + 1];
    shape[d] += left + right;
    const std::int64_t cut_left = std::max<std::int64_t>(-left, 0),
                       cut_right = std::max<std::int64_t>(-right, 0);
    SG_CHECK(cut_left + cut_right <= x.shape()[d] && shape[d] >= 0,
             "[pad] widths {} cut more than dimension {} of {} has", widths, d, x.shape());
    if (cut_left + cut_right > 0)
      from = from.slice(d, cut_left, x.shape()[d] - cut_left - cut_right);
    start[d] = std::max<std::int64_t>(left, 0);
  }
  const Tensor out = Tensor::empty_strided(
      shape, x.is_channels_last() ? channels_last_strides(shape) : contiguous_strides(shape),
      x.dtype(), x.device());
  out.fill(value);
  Tensor inside = out;
  for (int d = 0; d < shape.size(); ++d) inside = inside.slice(d, start[d], from.shape()[d]);
  inside.copy_from(from);
  return out;
}

}  // namespace sg::ops
