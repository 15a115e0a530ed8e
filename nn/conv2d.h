#pragma once

#include "autograd/conv.h"
#include "nn/pool.h"

namespace sg::nn {

struct ConvOptions {
  Size2 stride = 1;
  Size2 padding = 0;
  Size2 dilation = 1;
  std::int64_t groups = 1;
  bool bias = true;
};

/// x [N, in, H, W] -> [N, out, H', W']; weight [out, in / groups, kh, kw], bias [out], both U(-b,
/// b) with b = 1 / sqrt(in / groups kh kw).
class Conv2d : public Module {
 public:
  Conv2d(std::int64_t in, std::int64_t out, Size2 kernel, const ConvOptions& o = {})
      : options{
            .stride = o.stride, .padding = o.padding, .dilation = o.dilation, .groups = o.groups} {
    check_size("Conv2d", "kernel", kernel, 1);
    check_size("Conv2d", "stride", o.stride, 1);
    check_size("Conv2d", "padding", o.padding, 0);
    check_size("Conv2d", "dilation", o.dilation, 1);
    SG_CHECK(in > 0 && out > 0 && o.groups > 0 && in % o.groups == 0 && out % o.groups == 0,
             "[Conv2d] {} groups do not divide {} input and {} output channels", o.groups, in, out);
    const double bound = default_bound(in / o.groups * kernel.height * kernel.width);
    weight = parameter("weight", {out, in / o.groups, kernel.height, kernel.width},
                       uniform(-bound, bound));
    if (o.bias) bias = parameter("bias", {out}, uniform(-bound, bound));
  }
  Var forward(const Var& x) override { return conv2d(x, weight, bias, options); }
  /// relu(forward(x)) in one op.
  Var forward_relu(const Var& x) {
    return named_errors([&] {
      Conv2dOptions fused = options;
      fused.relu = true;
      return conv2d(x, weight, bias, fused);
    });
  }
  /// pool(relu(forward(x))) in one op, which need not write the convolution's full-size result.
  Var forward_relu_max_pool(const Var& x, const MaxPool2d& pool) {
    return named_errors(
        [&] { return conv2d_relu_max_pool2d(x, weight, bias, options, pool.options); });
  }

  Parameter weight, bias;
  const Conv2dOptions options;
};

}  // namespace sg::nn
