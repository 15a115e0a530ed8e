#pragma once

#include "autograd/checkpoint.h"
#include "autograd/conv.h"
#include "core/ops.h"
#include "nn/module.h"

namespace sg::nn {

struct BatchNormOptions {
  double eps = 1e-5;
  double momentum = 0.1;
  bool affine = true;
  bool track_running_stats = true;
};

/// Normalises each channel of [N, C, H, W] over N, H and W (Ioffe and Szegedy, 2015): by the
/// batch's statistics in training (those of a micro-batch, under dist), by the running ones in
/// evaluation; weight ones, bias zeros [C]. The buffers running_mean, running_var and
/// num_batches_tracked are updated in training, but not while activations are recomputed.
class BatchNorm2d : public Module {
 public:
  explicit BatchNorm2d(std::int64_t channels, const BatchNormOptions& options = {})
      : options(options) {
    if (options.affine) {
      weight = parameter("weight", {channels}, ones);
      bias = parameter("bias", {channels}, zeros);
    }
    if (!options.track_running_stats) return;
    const Scoped kind(current_rank().kind, Kind::buffers);
    running_mean = buffer("running_mean", Tensor::full({channels}, 0));
    running_var = buffer("running_var", Tensor::full({channels}, 1));
    num_batches_tracked = buffer("num_batches_tracked", Tensor::full({}, 0, DType::i64));
  }
  Var forward(const Var& x) override { return normalize(x, false); }
  /// relu(forward(x)) in one pass.
  Var forward_relu(const Var& x) {
    return named_errors([&] { return normalize(x, true); });
  }

  Parameter weight, bias;
  Buffer running_mean, running_var, num_batches_tracked;
  const BatchNormOptions options;

 private:
  Var normalize(const Var& x, bool relu) {
    SG_CHECK(x.shape().size() == 4, "[BatchNorm2d] input is {}, expected [N, C, H, W]", x.shape());
    const Tensor& count = num_batches_tracked;
    if (is_training() && count.defined() && !count.is_meta() && !recomputing())
      count.copy_from(ops::add(count, 1));
    return batch_norm(x, weight, bias, running_mean, running_var,
                      is_training() || !options.track_running_stats, options.momentum, options.eps,
                      relu);
  }
};

}  // namespace sg::nn
