#include "autograd/conv.h"

#include "autograd/checkpoint.h"
#include "autograd/node.h"

namespace sg {

namespace {

// Where a convolution's backward writes. A bias alone, its weight frozen, is possible.
ops::Conv2dGrads wanted(Backward& back) {
  return {back.needs(0), back.needs(1) ? back.target(1) : Tensor(),
          back.needs(2) ? back.target(2) : Tensor()};
}

void hand_over(Backward& back, const Tensor& dx, const ops::Conv2dGrads& grads) {
  if (back.needs(0)) back.set(0, dx);
  if (back.needs(1)) back.set(1, grads.weight);
  if (back.needs(2)) back.set(2, grads.bias);
}

}  // namespace

Var conv2d(const Var& x, const Var& weight, const Var& bias, const Conv2dOptions& options) {
  const Tensor input = x.value(), w = weight.value();
  const Tensor y = ops::conv2d(input, w, bias.defined() ? bias.value() : Tensor(), options);
  return record("conv2d", {x, weight, bias}, y,
                [options, x = Saved(weight.requires_grad() ? input : Tensor()),
                 w = Saved(x.requires_grad() ? w : Tensor()),
                 y = Saved(options.relu ? y : Tensor())](Backward& back) {
                  const ops::Conv2dGrads grads = wanted(back);
                  const Tensor dx = ops::conv2d_backward(back.grad(), y.get(), x.get(), w.get(),
                                                         back.input_shape(0), back.input_shape(1),
                                                         options, grads);
                  hand_over(back, dx, grads);
                });
}

Var conv2d_relu_max_pool2d(const Var& x, const Var& weight, const Var& bias,
                           const Conv2dOptions& conv, const Pool2dOptions& pool) {
  const Tensor input = x.value();
  if (!ops::conv2d_relu_max_pool2d_is_fused(x.shape(), weight.shape(), x.dtype(), conv, pool,
                                            input.device())) {
    Conv2dOptions with_relu = conv;
    with_relu.relu = true;
    return max_pool2d(conv2d(x, weight, bias, with_relu), pool);
  }
  const Tensor w = weight.value();
  const ops::MaxPool y =
      ops::conv2d_relu_max_pool2d(input, w, bias.defined() ? bias.value() : Tensor(), conv, pool);
  return record(
      "conv2d_relu_max_pool2d", {x, weight, bias}, y.output,
      [conv, pool, x = Saved(weight.requires_grad() ? input : Tensor()),
       w = Saved(x.requires_grad() ? w : Tensor()), index = Saved(y.index)](Backward& back) {
        const ops::Conv2dGrads grads = wanted(back);
        const Tensor dx = ops::conv2d_relu_max_pool2d_backward(
            back.grad(), index.get(), x.get(), w.get(), back.input_shape(0), back.input_shape(1),
            conv, pool, grads);
        hand_over(back, dx, grads);
      });
}

Var max_pool2d(const Var& x, const Pool2dOptions& options) {
  const ops::MaxPool pool = ops::max_pool2d(x.value(), options);
  return record(
      "max_pool2d", {x}, pool.output, [options, index = Saved(pool.index)](Backward& back) {
        back.set(0,
                 ops::max_pool2d_backward(back.grad(), index.get(), back.input_shape(0), options));
      });
}

Var avg_pool2d(const Var& x, const Pool2dOptions& options) {
  return record("avg_pool2d", {x}, ops::avg_pool2d(x.value(), options), [options](Backward& back) {
    back.set(0, ops::avg_pool2d_backward(back.grad(), back.input_shape(0), options));
  });
}

Var global_avg_pool2d(const Var& x) {
  const Tensor input = x.value();
  return record("global_avg_pool2d", {x}, ops::global_avg_pool2d(input),
                [last = input.is_channels_last()](Backward& back) {
                  back.set(0,
                           ops::global_avg_pool2d_backward(back.grad(), back.input_shape(0), last));
                });
}

Var batch_norm(const Var& x, const Var& weight, const Var& bias, const Tensor& running_mean,
               const Tensor& running_var, bool training, double momentum, double eps, bool relu) {
  const Tensor input = x.value();
  const Tensor w = weight.defined() ? weight.value() : Tensor();
  const Tensor b = bias.defined() ? bias.value() : Tensor();
  const ops::BatchNorm bn =
      training ? ops::batch_norm_training(input, w, b, running_mean, running_var, momentum, eps,
                                          relu, !recomputing())
               : ops::batch_norm_inference(input, w, b, running_mean, running_var, eps, relu);
  return record("batch_norm", {x, weight, bias}, bn.output,
                [training, relu, x = Saved(input), w = Saved(w), b = Saved(b),
                 mean = Saved(bn.mean), invstd = Saved(bn.invstd)](Backward& back) {
                  const Tensor dw = back.needs(1) ? back.target(1) : Tensor();
                  const Tensor db = back.needs(2) ? back.target(2) : Tensor();
                  const Tensor dx =
                      ops::batch_norm_backward(back.grad(), x.get(), w.get(), b.get(), mean.get(),
                                               invstd.get(), training, relu, back.needs(0), dw, db);
                  if (back.needs(0)) back.set(0, dx);
                  if (back.needs(1)) back.set(1, dw);
                  if (back.needs(2)) back.set(2, db);
                });
}

}  // namespace sg
