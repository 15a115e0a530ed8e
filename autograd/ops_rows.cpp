#include "autograd/node.h"
#include "autograd/ops.h"
#include "core/ops.h"

namespace sg {

Var softmax(const Var& x, std::int64_t dim) {
  const Tensor y = ops::softmax(x.value(), dim);
  return record("softmax", {x}, y, [y = Saved(y), dim](Backward& back) {
    back.set(0, ops::softmax_grad(y.get(), back.grad(), dim));
  });
}

Var log_softmax(const Var& x, std::int64_t dim) {
  const Tensor y = ops::log_softmax(x.value(), dim);
  return record("log_softmax", {x}, y, [y = Saved(y), dim](Backward& back) {
    back.set(0, ops::log_softmax_grad(y.get(), back.grad(), dim));
  });
}

Var layer_norm(const Var& x, const Shape& normalized, const Var& weight, const Var& bias,
               double eps) {
  const Tensor in = x.value(), w = weight.defined() ? weight.value() : Tensor();
  const ops::LayerNorm norm =
      ops::layer_norm(in, normalized, w, bias.defined() ? bias.value() : Tensor(), eps);
  return record("layer_norm", {x, weight, bias}, norm.y,
                [x = Saved(in), w = Saved(w), mean = Saved(norm.mean), rstd = Saved(norm.rstd),
                 normalized](Backward& back) {
                  const Tensor in = x.get(), g = back.grad(), m = mean.get(), s = rstd.get();
                  if (back.needs(1) || back.needs(2)) {
                    const Tensor gw = back.needs(1) ? back.target(1) : Tensor();
                    const Tensor gb = back.needs(2) ? back.target(2) : Tensor();
                    ops::layer_norm_grad_affine(in, m, s, g, normalized, gw, gb);
                    if (gw.defined()) back.set(1, gw);
                    if (gb.defined()) back.set(2, gb);
                  }
                  if (back.needs(0))
                    back.set(0, ops::layer_norm_grad_x(in, w.get(), m, s, g, normalized));
                });
}

Var embedding(const Tensor& indices, const Var& weight, std::int64_t padding_index) {
  return record("embedding", {weight}, ops::embedding(indices, weight.value()),
                [indices = Saved(indices), padding_index](Backward& back) {
                  const Tensor gw = back.target(0);
                  ops::embedding_grad(indices.get(), back.grad(), padding_index, gw);
                  back.set(0, gw);
                });
}

Var dropout(const Var& x, double p, std::uint64_t site, bool training) {
  SG_CHECK(p >= 0 && p <= 1, "[dropout] the probability must lie in [0, 1], got {}", p);
  if (!training || p == 0) return x;
  const ops::DropoutKey key = ops::DropoutKey::current(site);
  return record("dropout", {x}, ops::dropout(x.value(), p, key),
                [p, key](Backward& back) { back.set(0, ops::dropout(back.grad(), p, key)); });
}

}  // namespace sg
