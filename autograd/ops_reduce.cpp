#include <algorithm>

#include "autograd/node.h"
#include "autograd/ops.h"
#include "core/ops.h"

namespace sg {
namespace {

// The gradient of a reduction's result with the reduced dimensions put back as size 1.
Tensor with_dims(const Tensor& grad, const Shape& shape, const Dims& dims) {
  return grad.reshape(ops::reduced_shape("sum", shape, dims, true));
}

std::int64_t reduced_count(const Shape& shape, const Dims& dims) {
  return numel(shape) /
         std::max<std::int64_t>(numel(ops::reduced_shape("mean", shape, dims, false)), 1);
}

Var extremum(const char* op, const Var& x, const Tensor& value, const Tensor& kept,
             const Tensor& result, const Dims& dims) {
  return record(op, {x}, result, [x = Saved(value), y = Saved(kept), dims](Backward& back) {
    const Tensor in = x.get();
    const Tensor hit = ops::eq(in, y.get()).to(in.dtype());
    const Tensor share =
        ops::div(with_dims(back.grad(), in.shape(), dims), ops::sum(hit, dims, true));
    back.set(0, ops::mul(hit, share));
  });
}

}  // namespace

Var sum(const Var& x, const Dims& dims, bool keep_dims) {
  return record("sum", {x}, ops::sum(x.value(), dims, keep_dims), [dims](Backward& back) {
    const Shape& shape = back.input_shape(0);
    back.set(0, with_dims(back.grad(), shape, dims).expand(shape));
  });
}

Var mean(const Var& x, const Dims& dims, bool keep_dims) {
  return record("mean", {x}, ops::mean(x.value(), dims, keep_dims), [dims](Backward& back) {
    const Shape& shape = back.input_shape(0);
    const double count = static_cast<double>(std::max<std::int64_t>(reduced_count(shape, dims), 1));
    back.set(0, with_dims(ops::mul(back.grad(), 1.0 / count), shape, dims).expand(shape));
  });
}

Var amax(const Var& x, const Dims& dims, bool keep_dims) {
  const Tensor value = x.value(), kept = ops::amax(value, dims, true);
  return extremum("amax", x, value, kept,
                  kept.reshape(ops::reduced_shape("amax", value.shape(), dims, keep_dims)), dims);
}

Var amin(const Var& x, const Dims& dims, bool keep_dims) {
  const Tensor value = x.value(), kept = ops::amin(value, dims, true);
  return extremum("amin", x, value, kept,
                  kept.reshape(ops::reduced_shape("amin", value.shape(), dims, keep_dims)), dims);
}

Var var(const Var& x, const Dims& dims, int correction, bool keep_dims) {
  const Tensor value = x.value();
  return record("var", {x}, ops::var(value, dims, correction, keep_dims),
                [x = Saved(value), dims, correction](Backward& back) {
                  const Tensor in = x.get();
                  const double rest = std::max(
                      static_cast<double>(reduced_count(in.shape(), dims)) - correction, 0.0);
                  const Tensor scale =
                      ops::mul(with_dims(back.grad(), in.shape(), dims), 2.0 / rest);
                  back.set(0, ops::mul(ops::sub(in, ops::mean(in, dims, true)), scale));
                });
}

}  // namespace sg
