#include "autograd/node.h"
#include "autograd/ops.h"
#include "core/ops.h"

namespace sg {

Var cross_entropy(const Var& logits, const Tensor& targets, const CrossEntropyOptions& options) {
  const Tensor x = logits.value();
  const ops::CrossEntropy ce = ops::cross_entropy(x, targets, options);
  return record(
      "cross_entropy", {logits}, ce.loss,
      [x = Saved(x), stats = Saved(ce.stats), targets = Saved(targets), options](Backward& back) {
        back.set(
            0, ops::cross_entropy_grad(x.get(), stats.get(), targets.get(), options, back.grad()));
      });
}

Var mse_loss(const Var& x, const Var& target, Reduction reduction) {
  SG_CHECK(x.shape() == target.shape(), "[mse_loss] shapes differ: {} and {}", x.shape(),
           target.shape());
  const Tensor difference = ops::sub(x.value(), target.value());
  const Tensor squares = ops::square(difference);
  const Tensor loss = reduction == Reduction::none  ? squares
                      : reduction == Reduction::sum ? ops::sum(squares)
                                                    : ops::mean(squares);
  const double factor =
      reduction == Reduction::mean ? 2.0 / static_cast<double>(numel(x.shape())) : 2.0;
  return record("mse_loss", {x, target}, loss,
                [difference = Saved(difference), factor](Backward& back) {
                  const Tensor gx = ops::mul(difference.get(), ops::mul(back.grad(), factor));
                  if (back.needs(0)) back.set(0, gx);
                  if (back.needs(1)) back.set(1, ops::neg(gx));
                });
}

}  // namespace sg
