// Pooling over windows of [N, C, H, W].
#pragma once

#include "autograd/conv.h"
#include "nn/module.h"
#include "nn/size2.h"

namespace sg::nn {

/// stride 0: the kernel's size.
struct PoolOptions {
  Size2 stride = 0;
  Size2 padding = 0;
};

namespace detail {
inline Pool2dOptions pool_options(std::string_view layer, Size2 kernel,
                                  const PoolOptions& options) {
  check_size(layer, "kernel", kernel, 1);
  check_size(layer, "stride", options.stride, 0);
  check_size(layer, "padding", options.padding, 0);
  SG_CHECK(2 * options.padding.height <= kernel.height && 2 * options.padding.width <= kernel.width,
           "[{}] padding must be at most half the kernel, got [{}, {}] for [{}, {}]", layer,
           options.padding.height, options.padding.width, kernel.height, kernel.width);
  return {.kernel = kernel, .stride = options.stride, .padding = options.padding};
}
}  // namespace detail

/// Padding counts as minus infinity.
class MaxPool2d : public Module {
 public:
  explicit MaxPool2d(Size2 kernel, const PoolOptions& options = {})
      : options(detail::pool_options("MaxPool2d", kernel, options)) {}
  Var forward(const Var& x) override { return max_pool2d(x, options); }
  const Pool2dOptions options;
};

/// Padding counts as zeros, in the divisor too.
class AvgPool2d : public Module {
 public:
  explicit AvgPool2d(Size2 kernel, const PoolOptions& options = {})
      : options(detail::pool_options("AvgPool2d", kernel, options)) {}
  Var forward(const Var& x) override { return avg_pool2d(x, options); }
  const Pool2dOptions options;
};

/// Mean over H and W: [N, C, H, W] -> [N, C, 1, 1]. Other output sizes are refused.
class AdaptiveAvgPool2d : public Module {
 public:
  explicit AdaptiveAvgPool2d(Size2 output = 1) {
    SG_CHECK(output.height == 1 && output.width == 1,
             "[AdaptiveAvgPool2d] only output size 1 is supported, got [{}, {}]; AvgPool2d takes a "
             "kernel size",
             output.height, output.width);
  }
  Var forward(const Var& x) override { return global_avg_pool2d(x); }
};
using GlobalAvgPool2d = AdaptiveAvgPool2d;

}  // namespace sg::nn
