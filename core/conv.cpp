#include "core/conv.h"

#include <algorithm>

#include "core/kernels/conv_reference.h"
#include "core/onednn_conv.h"
#include "core/parallel.h"

namespace sg::ops {
namespace {

using kernels::ConvGeometry;

ConvGeometry geometry(const Shape& x, const Shape& weight, const Shape& y,
                      const Conv2dOptions& o) {
  return {x[0],        x[1],         x[2],         x[3],          weight[0],     weight[2],
          weight[3],   y[2],         y[3],         o.stride[0],   o.stride[1],   o.padding[0],
          o.padding[1], o.dilation[0], o.dilation[1], o.groups};
}

bool is_16_bit(DType dtype) { return dtype == DType::bf16 || dtype == DType::f16; }

// An output in the layout that the algorithm writes.
Tensor make_output(const Shape& shape, DType dtype, Device device, ConvAlgorithm algorithm) {
  return Tensor::empty_strided(shape,
                               algorithm == ConvAlgorithm::onednn ? channels_last_strides(shape)
                                                                  : contiguous_strides(shape),
                               dtype, device);
}

// A copy in the layout that the algorithm reads, booked as scratch.
Tensor as_input(const Tensor& t, ConvAlgorithm algorithm) {
  Scoped kind(current_rank().kind, Kind::buffers);
  return algorithm == ConvAlgorithm::onednn ? t.channels_last() : t.contiguous();
}

Tensor contiguous_scratch(const Tensor& t) {
  Scoped kind(current_rank().kind, Kind::buffers);
  return t.contiguous();
}

ConvAlgorithm resolve(ConvAlgorithm asked, const Tensor& x, const Tensor& weight,
                      const Conv2dOptions& options) {
  if (asked == ConvAlgorithm::automatic) return conv2d_algorithm(x, weight, options);
  if (asked == ConvAlgorithm::reference) return asked;
  SG_CHECK(x.dtype() == DType::f32, "[conv2d] the algorithm {} computes f32, got {}", name_of(asked),
           describe(x));
  if (asked == ConvAlgorithm::onednn)
    SG_CHECK(SG_ONEDNN, "[conv2d] the algorithm onednn is not in this build; configure with "
                        "SHARDGRAD_ONEDNN=ON");
  return asked;
}

template <class T>
const T* data_or_null(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

}  // namespace

const char* name_of(ConvAlgorithm algorithm) {
  switch (algorithm) {
    case ConvAlgorithm::automatic: return "automatic";
    case ConvAlgorithm::reference: return "reference";
    case ConvAlgorithm::onednn: return "onednn";
    case ConvAlgorithm::pixels: return "pixels";
  }
  return "?";
}

ConvAlgorithm conv2d_algorithm(const Tensor& x, const Tensor& weight,
                               const Conv2dOptions& options) {
  static_cast<void>(weight);
  static_cast<void>(options);
  if (SG_ONEDNN && x.dtype() == DType::f32) return ConvAlgorithm::onednn;
  return ConvAlgorithm::reference;
}

Shape conv2d_shape(const Shape& x, const Shape& weight, const Conv2dOptions& o) {
  SG_CHECK(x.size() == 4, "[conv2d] input {} is not [N, C, H, W]", x);
  SG_CHECK(weight.size() == 4, "[conv2d] weight {} is not [O, C / groups, kh, kw]", weight);
  SG_CHECK(o.groups >= 1, "[conv2d] groups must be at least 1, got {}", o.groups);
  SG_CHECK(weight[0] % o.groups == 0, "[conv2d] weight {} has {} output channels, not divisible by groups {}",
           weight, weight[0], o.groups);
  SG_CHECK(x[1] == weight[1] * o.groups, "[conv2d] input has {} channels, weight {} with groups {} wants {}",
           x[1], weight, o.groups, weight[1] * o.groups);
  Shape y{x[0], weight[0], 0, 0};
  for (int i = 0; i < 2; ++i) {
    const auto at = static_cast<std::size_t>(i);
    SG_CHECK(o.stride[at] >= 1 && o.dilation[at] >= 1 && o.padding[at] >= 0,
             "[conv2d] stride [{}, {}] and dilation [{}, {}] must be at least 1, padding [{}, {}] at least 0",
             o.stride[0], o.stride[1], o.dilation[0], o.dilation[1], o.padding[0], o.padding[1]);
    const std::int64_t window = o.dilation[at] * (weight[2 + i] - 1) + 1;
    const std::int64_t padded = x[2 + i] + 2 * o.padding[at];
    SG_CHECK(weight[2 + i] >= 1 && window <= padded,
             "[conv2d] the kernel of weight {} spans {} in dimension {}, more than input {} with padding {} has: {}",
             weight, window, 2 + i, x, o.padding[at], padded);
    y[2 + i] = (padded - window) / o.stride[at] + 1;
  }
  return y;
}

Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options,
              ConvAlgorithm asked) {
  check_same_dtype("conv2d", x, weight);
  if (bias.defined()) {
    check_same_dtype("conv2d", x, bias);
    SG_CHECK(bias.shape() == Shape{weight.size(0)}, "[conv2d] bias {} does not fit weight {}; expected [{}]",
             bias.shape(), weight.shape(), weight.size(0));
  }
  const Shape shape = conv2d_shape(x.shape(), weight.shape(), options);
  if (is_16_bit(x.dtype()))
    return conv2d(x.to(DType::f32), weight.to(DType::f32), bias.defined() ? bias.to(DType::f32) : bias,
                  options, asked)
        .to(x.dtype());
  const ConvAlgorithm algorithm = resolve(asked, x, weight, options);
  Tensor y = make_output(shape, x.dtype(), x.device(), algorithm);
  if (y.is_meta() || y.numel() == 0) return y;
  const ConvGeometry g = geometry(x.shape(), weight.shape(), shape, options);
  const Tensor in = as_input(x, algorithm), w = contiguous_scratch(weight);
  const Tensor b = bias.defined() ? contiguous_scratch(bias) : bias;
#if SG_ONEDNN
  if (algorithm == ConvAlgorithm::onednn) {
    onednn::conv_forward(g, in.data<float>(), w.data<float>(), data_or_null<float>(b),
                         y.data<float>(), options.relu);
    return y;
  }
#endif
  visit_floating("conv2d", x.dtype(), [&](auto type) {
    using T = compute_t<typename decltype(type)::type>;
    kernels::conv_reference_forward(g, in.data<T>(), w.data<T>(), data_or_null<T>(b), y.data<T>(),
                                    options.relu);
  });
  return y;
}

Tensor conv2d_backward_input(const Tensor& grad, const Tensor& weight, const Shape& x_shape,
                             const Conv2dOptions& options, ConvAlgorithm asked) {
  check_same_dtype("conv2d", grad, weight);
  const Shape shape = conv2d_shape(x_shape, weight.shape(), options);
  SG_CHECK(grad.shape() == shape, "[conv2d] the gradient is {}, the output {}", grad.shape(), shape);
  if (is_16_bit(grad.dtype()))
    return conv2d_backward_input(grad.to(DType::f32), weight.to(DType::f32), x_shape, options, asked)
        .to(grad.dtype());
  const Tensor like = Tensor(grad.storage(), 0, x_shape, contiguous_strides(x_shape), grad.dtype());
  const ConvAlgorithm algorithm = resolve(asked, like, weight, options);
  Tensor dx = make_output(x_shape, grad.dtype(), grad.device(), algorithm);
  if (dx.is_meta() || dx.numel() == 0) return dx;
  if (grad.numel() == 0) {
    dx.fill(0);
    return dx;
  }
  const ConvGeometry g = geometry(x_shape, weight.shape(), shape, options);
  const Tensor dy = as_input(grad, algorithm), w = contiguous_scratch(weight);
#if SG_ONEDNN
  if (algorithm == ConvAlgorithm::onednn) {
    onednn::conv_backward_input(g, dy.data<float>(), w.data<float>(), dx.data<float>());
    return dx;
  }
#endif
  visit_floating("conv2d", grad.dtype(), [&](auto type) {
    using T = compute_t<typename decltype(type)::type>;
    kernels::conv_reference_backward_input(g, dy.data<T>(), w.data<T>(), dx.data<T>());
  });
  return dx;
}

void conv2d_backward_weight(const Tensor& grad, const Tensor& x, const Tensor& weight_grad,
                            const Tensor& bias_grad, const Conv2dOptions& options,
                            ConvAlgorithm asked) {
  check_same_dtype("conv2d", grad, x);
  SG_CHECK(weight_grad.defined(), "[conv2d] backward_weight needs the weight's gradient tensor");
  const Shape& w_shape = weight_grad.shape();
  const Shape shape = conv2d_shape(x.shape(), w_shape, options);
  SG_CHECK(grad.shape() == shape, "[conv2d] the gradient is {}, the output {}", grad.shape(), shape);
  if (is_16_bit(grad.dtype())) {
    const Tensor dw = Tensor::empty(w_shape, DType::f32, grad.device());
    const Tensor db = bias_grad.defined() ? Tensor::empty(bias_grad.shape(), DType::f32, grad.device())
                                          : bias_grad;
    conv2d_backward_weight(grad.to(DType::f32), x.to(DType::f32), dw, db, options, asked);
    weight_grad.copy_from(dw);
    if (db.defined()) bias_grad.copy_from(db);
    return;
  }
  const ConvAlgorithm algorithm = resolve(asked, x, weight_grad, options);
  if (grad.is_meta()) return;
  if (grad.numel() == 0 || weight_grad.numel() == 0) {
    weight_grad.fill(0);
    if (bias_grad.defined()) bias_grad.fill(0);
    return;
  }
  const ConvGeometry g = geometry(x.shape(), w_shape, shape, options);
  const Tensor dy = as_input(grad, algorithm), in = as_input(x, algorithm);
#if SG_ONEDNN
  if (algorithm == ConvAlgorithm::onednn) {
    onednn::conv_backward_weight(g, dy.data<float>(), in.data<float>(), weight_grad.data<float>(),
                                 bias_grad.defined() ? bias_grad.data<float>() : nullptr);
    return;
  }
#endif
  visit_floating("conv2d", grad.dtype(), [&](auto type) {
    using T = compute_t<typename decltype(type)::type>;
    kernels::conv_reference_backward_weight(g, dy.data<T>(), in.data<T>(), weight_grad.data<T>(),
                                            bias_grad.defined() ? bias_grad.data<T>() : nullptr);
  });
}

Tensor relu_mask(const Tensor& grad, const Tensor& output) {
  check_same_dtype("relu", grad, output);
  Tensor result = Tensor::empty_like(output);
  if (result.is_meta()) return result;
  Tensor dy = grad;
  if (dy.strides() != result.strides() || !output.is_dense()) {
    Scoped kind(current_rank().kind, Kind::buffers);
    dy = Tensor::empty_like(output);
    dy.copy_from(grad);
  }
  visit_floating("relu", grad.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const T* from = dy.data<T>();
    const T* y = output.data<T>();
    T* to = result.data<T>();
    parallel_for(result.numel(), 1 << 14, [&](std::int64_t begin, std::int64_t end) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i)
        to[i] = static_cast<compute_t<T>>(y[i]) > 0 ? from[i] : T(compute_t<T>(0));
    });
  });
  return result;
}

}  // namespace sg::ops
