// Views and copies. The backward of each is the reverse move of the gradient.
#include <algorithm>

#include "autograd/node.h"
#include "autograd/ops.h"
#include "core/ops.h"

namespace sg {
namespace {

Var reshaped(const char* op, const Var& x, const Tensor& value) {
  return record(op, {x}, value,
                [](Backward& back) { back.set(0, back.grad().reshape(back.input_shape(0))); });
}

}  // namespace

Var reshape(const Var& x, const Shape& shape) {
  return reshaped("reshape", x, x.value().reshape(shape));
}

Var flatten(const Var& x, std::int64_t start_dim, std::int64_t end_dim) {
  const Shape& s = x.shape();
  if (s.empty()) return reshape(x, {1});
  const int start = normalize_dim("flatten", start_dim, s.size()),
            end = normalize_dim("flatten", end_dim, s.size());
  SG_CHECK(start <= end, "[flatten] start {} is after end {} in {}", start_dim, end_dim, s);
  Shape shape;
  for (int i = 0; i < s.size(); ++i) {
    if (i > start && i <= end)
      shape[shape.size() - 1] *= s[i];
    else
      shape.push_back(s[i]);
  }
  return reshaped("flatten", x, x.value().reshape(shape));
}

Var transpose(const Var& x, std::int64_t a, std::int64_t b) {
  return record("transpose", {x}, x.value().transpose(a, b),
                [a, b](Backward& back) { back.set(0, back.grad().transpose(a, b)); });
}

Var permute(const Var& x, const Dims& order) {
  const Tensor y = x.value().permute(order);
  Dims inverse = Dims::filled(order.size(), 0);
  for (int i = 0; i < order.size(); ++i)
    inverse[normalize_dim("permute", order[i], order.size())] = i;
  return record("permute", {x}, y,
                [inverse](Backward& back) { back.set(0, back.grad().permute(inverse)); });
}

Var expand(const Var& x, const Shape& shape) {
  return record("expand", {x}, x.value().expand(shape),
                [](Backward& back) { back.set(0, back.grad()); });
}

Var unsqueeze(const Var& x, std::int64_t dim) {
  return reshaped("unsqueeze", x, x.value().unsqueeze(dim));
}

Var squeeze(const Var& x, std::int64_t dim) {
  return reshaped("squeeze", x, x.value().squeeze(dim));
}

Var slice(const Var& x, std::int64_t dim, std::int64_t start, std::int64_t length,
          std::int64_t step) {
  return record("slice", {x}, x.value().slice(dim, start, length, step), [=](Backward& back) {
    const Tensor g = back.grad();
    const Tensor whole = Tensor::zeros(back.input_shape(0), g.dtype(), g.device());
    whole.slice(dim, start, length, step).copy_from(g);
    back.set(0, whole);
  });
}

Var select(const Var& x, std::int64_t dim, std::int64_t index) {
  const int d = normalize_dim("select", dim, x.shape().size());
  SG_CHECK(index >= -x.shape()[d] && index < x.shape()[d],
           "[select] index {} is outside dimension {} of {}", index, d, x.shape());
  return squeeze(slice(x, d, index < 0 ? index + x.shape()[d] : index, 1), d);
}

Var cat(std::span<const Var> xs, std::int64_t dim) {
  std::vector<Tensor> values;
  std::vector<std::int64_t> sizes;
  for (const Var& x : xs) values.push_back(x.value());
  const Tensor y = ops::cat(values, dim);
  const int d = normalize_dim("cat", dim, y.dim_count());
  for (const Var& x : xs) sizes.push_back(x.shape()[d]);
  return record("cat", xs, y, [d, sizes = std::move(sizes)](Backward& back) {
    std::int64_t start = 0;
    for (int i = 0; i < static_cast<int>(sizes.size()); ++i) {
      const std::int64_t size = sizes[static_cast<std::size_t>(i)];
      if (back.needs(i)) back.set(i, back.grad().slice(d, start, size));
      start += size;
    }
  });
}

Var stack(std::span<const Var> xs, std::int64_t dim) {
  SG_CHECK(!xs.empty(), "[stack] needs at least one value");
  const int d = normalize_dim("stack", dim, xs[0].shape().size() + 1);
  std::vector<Var> rows;
  for (const Var& x : xs) {
    SG_CHECK(x.shape() == xs[0].shape(), "[stack] shapes differ: {} and {}", xs[0].shape(),
             x.shape());
    rows.push_back(unsqueeze(x, d));
  }
  return cat(rows, d);
}

Var pad(const Var& x, const Dims& widths, double value) {
  Dims reverse = widths;
  for (std::int64_t& w : reverse) w = -w;
  return record("pad", {x}, ops::pad(x.value(), widths, value),
                [reverse](Backward& back) { back.set(0, ops::pad(back.grad(), reverse)); });
}

Var contiguous(const Var& x) {
  return record("contiguous", {x}, x.value().contiguous(),
                [](Backward& back) { back.set(0, back.grad()); });
}

Var cast(const Var& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  const DType from = x.dtype();
  if (!is_floating(from) || !is_floating(dtype)) return Var(x.value().to(dtype));
  return record("cast", {x}, x.value().to(dtype),
                [from](Backward& back) { back.set(0, back.grad().to(from)); });
}

}  // namespace sg
