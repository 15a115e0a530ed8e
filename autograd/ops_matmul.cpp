#include <algorithm>

#include "autograd/elementwise.h"
#include "autograd/ops.h"

namespace sg {
namespace {

// All dimensions but the last as one: [..., n] -> [rows, n].
Tensor rows_of(const Tensor& x) {
  const std::int64_t n = x.shape().back();
  return x.reshape({x.numel() / std::max<std::int64_t>(n, 1), n});
}

}  // namespace

Var matmul(const Var& a, const Var& b) {
  const int da = a.shape().size(), db = b.shape().size();
  if (da == 1 && db >= 1) {
    const Var y = matmul(unsqueeze(a, 0), b);
    return squeeze(y, db == 1 ? -1 : -2);
  }
  if (db == 1 && da >= 1) return squeeze(matmul(a, unsqueeze(b, 1)), -1);
  const Tensor x = a.value(), y = b.value();
  return record(
      "matmul", {a, b}, ops::matmul(x, y),
      [x = detail::save_if(b.requires_grad(), x),
       y = detail::save_if(a.requires_grad(), y)](Backward& back) {
        const Tensor g = back.grad();
        const int da = back.input_shape(0).size(), db = back.input_shape(1).size();
        // Gradients of plain matrices go to their final place; those of broadcast ones are summed
        // by set().
        if (back.needs(0)) {
          const Tensor right = y.get().transpose(-2, -1);
          if (da == 2 && db == 2) {
            const Tensor dx = back.target(0);
            ops::matmul_into(dx, g, right);
            back.set(0, dx);
          } else {
            back.set(0, ops::matmul(g, right));
          }
        }
        if (back.needs(1)) {
          const Tensor left = x.get();
          if (db == 2 && numel(back.input_shape(0)) > 0 && numel(back.input_shape(1)) > 0) {
            const Tensor dy = back.target(1);
            ops::matmul_into(dy, rows_of(left).transpose(0, 1), rows_of(g));
            back.set(1, dy);
          } else {
            back.set(1, ops::matmul(left.transpose(-2, -1), g));
          }
        }
      });
}

Var linear(const Var& x, const Var& weight, const Var& bias, bool relu) {
  const Tensor in = x.value(), w = weight.value();
  const Tensor out = ops::linear(in, w, bias.defined() ? bias.value() : Tensor(), relu);
  return record(
      "linear", {x, weight, bias}, out,
      [x = detail::save_if(weight.requires_grad(), in), w = detail::save_if(x.requires_grad(), w),
       y = detail::save_if(relu, out)](Backward& back) {
        Tensor g = back.grad();
        if (y.defined()) g = ops::relu_grad(y.get(), g);
        if (g.dim_count() != 2) {
          const std::int64_t n = g.shape().back();
          g = g.reshape({n > 0 ? g.numel() / n
                               : numel(back.input_shape(0)) /
                                     std::max<std::int64_t>(back.input_shape(0).back(), 1),
                         n});
        }
        if (back.needs(1)) {
          const Tensor rows = x.get(), dw = back.target(1);
          ops::matmul_into(dw, g.transpose(0, 1),
                           rows.reshape({g.shape()[0], rows.shape().back()}));
          back.set(1, dw);
        }
        if (back.needs(2)) {
          const Tensor db = back.target(2);
          ops::sum_to(g, db);
          back.set(2, db);
        }
        if (back.needs(0)) back.set(0, ops::matmul(g, w.get()).reshape(back.input_shape(0)));
      });
}

}  // namespace sg
