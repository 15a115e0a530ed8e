#include "core/conv.h"

#include <algorithm>

#include "core/conv_gpu.h"
#include "core/kernels/conv_direct_passes.h"
#include "core/kernels/conv_pixels_passes.h"
#include "core/kernels/conv_reference.h"
#include "core/kernels/conv_winograd_passes.h"
#include "core/onednn_conv.h"
#include "core/ops.h"

namespace sg::ops {
namespace {

using kernels::ConvGeometry;

ConvGeometry geometry(const Shape& x, const Shape& weight, const Shape& y, const Conv2dOptions& o) {
  return {x[0],         x[1],          x[2],          x[3],        weight[0],   weight[2],
          weight[3],    y[2],          y[3],          o.stride[0], o.stride[1], o.padding[0],
          o.padding[1], o.dilation[0], o.dilation[1], o.groups};
}

using kernels::ImageView;

// bf16 and f16 are computed in float. Undefined stays undefined.
Tensor to_f32(const Tensor& t) { return t.defined() ? t.to(DType::f32) : t; }

bool writes_channels_last(ConvAlgorithm algorithm) {
  return algorithm != ConvAlgorithm::reference && algorithm != ConvAlgorithm::pixels;
}
// The others take one layout, and copy what has another.
bool reads_any_layout(ConvAlgorithm algorithm) {
  return algorithm == ConvAlgorithm::direct || algorithm == ConvAlgorithm::pixels;
}

Tensor make_output(const Shape& shape, DType dtype, Device device, ConvAlgorithm algorithm) {
  const Strides strides =
      writes_channels_last(algorithm) ? channels_last_strides(shape) : contiguous_strides(shape);
  return Tensor::empty_strided(shape, strides, dtype, device);
}

Tensor contiguous_scratch(const Tensor& t) {
  if (!t.defined()) return t;
  Scoped kind(current_rank().kind, Kind::buffers);
  return t.contiguous();
}

// A copy in the layout that the algorithm reads, booked as scratch.
Tensor as_input(const Tensor& t, ConvAlgorithm algorithm) {
  Scoped kind(current_rank().kind, Kind::buffers);
  if (reads_any_layout(algorithm)) return t;
  return algorithm == ConvAlgorithm::reference ? t.contiguous() : t.channels_last();
}

template <class T>
ImageView<const T> view(const Tensor& t) {
  if (!t.defined()) return {};
  const Strides& s = t.strides();
  return {t.data<T>(), s[0], s[1], s[2], s[3]};
}
template <class T>
ImageView<T> mutable_view(const Tensor& t) {
  if (!t.defined()) return {};
  const Strides& s = t.strides();
  return {t.data<T>(), s[0], s[1], s[2], s[3]};
}

template <class T>
T* data_or_null(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

ConvAlgorithm resolve(ConvAlgorithm asked, const Shape& x, const Shape& weight, DType dtype,
                      const Conv2dOptions& options) {
  if (asked == ConvAlgorithm::automatic) return conv2d_algorithm(x, weight, dtype, options);
  if (asked == ConvAlgorithm::reference) return asked;
  SG_CHECK(dtype == DType::f32, "[conv2d] the algorithm {} computes f32, got {}", name_of(asked),
           name_of(dtype));
  if (asked == ConvAlgorithm::direct)
    SG_CHECK(kernels::conv_direct_supports(
                 geometry(x, weight, conv2d_shape(x, weight, options), options)),
             "[conv2d] the algorithm direct takes column strides of 1 and 2, got {}",
             options.stride[1]);
  if (asked == ConvAlgorithm::pixels)
    SG_CHECK(kernels::conv_pixels_supports(
                 geometry(x, weight, conv2d_shape(x, weight, options), options)),
             "[conv2d] the algorithm pixels takes column stride 1 and one group, got stride {}, "
             "groups {}",
             options.stride[1], options.groups);
  if (asked == ConvAlgorithm::winograd)
    SG_CHECK(kernels::conv_winograd_supports(
                 geometry(x, weight, conv2d_shape(x, weight, options), options)),
             "[conv2d] the algorithm winograd takes 3x3 kernels with stride, dilation and groups 1 "
             "and channels in "
             "multiples of 16, got input {}, weight {}",
             x, weight);
  if (asked == ConvAlgorithm::onednn)
    SG_CHECK(SG_ONEDNN,
             "[conv2d] the algorithm onednn is not in this build; configure with "
             "SHARDGRAD_ONEDNN=ON");
  return asked;
}

void check_bias(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  check_same_dtype("conv2d", x, weight);
  if (!bias.defined()) return;
  check_same_dtype("conv2d", x, bias);
  SG_CHECK(bias.shape() == Shape{weight.size(0)},
           "[conv2d] bias {} does not fit weight {}; expected [{}]", bias.shape(), weight.shape(),
           weight.size(0));
}

void check_wanted(const Conv2dGrads& wanted, const Shape& weight) {
  if (wanted.weight.defined())
    SG_CHECK(wanted.weight.shape() == weight && wanted.weight.is_contiguous(),
             "[conv2d] the weight's gradient {} must be contiguous, of shape {}",
             wanted.weight.shape(), weight);
  if (wanted.bias.defined())
    SG_CHECK(wanted.bias.shape() == Shape{weight[0]} && wanted.bias.is_contiguous(),
             "[conv2d] the bias's gradient {} must be contiguous, of shape [{}]",
             wanted.bias.shape(), weight[0]);
}

// No pixels or no channels: sums of nothing.
void zero_weight_grads(const Conv2dGrads& wanted) {
  if (wanted.weight.defined()) wanted.weight.fill(0);
  if (wanted.bias.defined()) wanted.bias.fill(0);
}

}  // namespace

const char* name_of(ConvAlgorithm algorithm) {
  switch (algorithm) {
    case ConvAlgorithm::automatic:
      return "automatic";
    case ConvAlgorithm::reference:
      return "reference";
    case ConvAlgorithm::onednn:
      return "onednn";
    case ConvAlgorithm::direct:
      return "direct";
    case ConvAlgorithm::pixels:
      return "pixels";
    case ConvAlgorithm::winograd:
      return "winograd";
  }
  return "?";
}

ConvAlgorithm conv2d_algorithm(const Shape& x, const Shape& weight, DType dtype,
                               const Conv2dOptions& options) {
  if (is_half(dtype)) return conv2d_algorithm(x, weight, DType::f32, options);
  if (dtype != DType::f32) return ConvAlgorithm::reference;
  const ConvGeometry g = geometry(x, weight, conv2d_shape(x, weight, options), options);
  if (kernels::conv_winograd_supports(g)) return ConvAlgorithm::winograd;
  // Lanes that are output channels must be filled: O = 6 would use 6 of 16.
  if (g.o <= 12 && g.ow >= 12 && kernels::conv_pixels_supports(g)) return ConvAlgorithm::pixels;
  if (kernels::conv_direct_supports(g) && (g.groups == 1 || g.o / g.groups >= 8))
    return ConvAlgorithm::direct;
  return SG_ONEDNN ? ConvAlgorithm::onednn : ConvAlgorithm::reference;
}

Shape conv2d_shape(const Shape& x, const Shape& weight, const Conv2dOptions& o) {
  SG_CHECK(x.size() == 4, "[conv2d] input {} is not [N, C, H, W]", x);
  SG_CHECK(weight.size() == 4, "[conv2d] weight {} is not [O, C / groups, kh, kw]", weight);
  SG_CHECK(o.groups >= 1, "[conv2d] groups must be at least 1, got {}", o.groups);
  SG_CHECK(weight[0] % o.groups == 0,
           "[conv2d] weight {} has {} output channels, not divisible by groups {}", weight,
           weight[0], o.groups);
  SG_CHECK(x[1] == weight[1] * o.groups,
           "[conv2d] input has {} channels, weight {} with groups {} wants {}", x[1], weight,
           o.groups, weight[1] * o.groups);
  Shape y{x[0], weight[0], 0, 0};
  for (int i = 0; i < 2; ++i) {
    const auto at = static_cast<std::size_t>(i);
    SG_CHECK(o.stride[at] >= 1 && o.dilation[at] >= 1 && o.padding[at] >= 0,
             "[conv2d] stride [{}, {}] and dilation [{}, {}] must be at least 1, padding [{}, {}] "
             "at least 0",
             o.stride[0], o.stride[1], o.dilation[0], o.dilation[1], o.padding[0], o.padding[1]);
    const std::int64_t window = o.dilation[at] * (weight[2 + i] - 1) + 1;
    const std::int64_t padded = x[2 + i] + 2 * o.padding[at];
    SG_CHECK(weight[2 + i] >= 1 && window <= padded,
             "[conv2d] the kernel of weight {} spans {} in dimension {}, more than input {} with "
             "padding {} has: {}",
             weight, window, 2 + i, x, o.padding[at], padded);
    y[2 + i] = (padded - window) / o.stride[at] + 1;
  }
  return y;
}

Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
              const Conv2dOptions& options, ConvAlgorithm asked) {
  check_bias(x, weight, bias);
  const Shape shape = conv2d_shape(x.shape(), weight.shape(), options);
  if (is_on_gpu(x.device()))
    return conv2d_on_gpu(geometry(x.shape(), weight.shape(), shape, options), x, weight, bias,
                         options.relu, asked);
  if (is_half(x.dtype()))
    return conv2d(to_f32(x), to_f32(weight), to_f32(bias), options, asked).to(x.dtype());
  const ConvAlgorithm algorithm = resolve(asked, x.shape(), weight.shape(), x.dtype(), options);
  Tensor y = make_output(shape, x.dtype(), x.device(), algorithm);
  if (y.is_meta() || y.numel() == 0) return y;
  const ConvGeometry g = geometry(x.shape(), weight.shape(), shape, options);
  const Tensor in = as_input(x, algorithm), w = contiguous_scratch(weight),
               b = contiguous_scratch(bias);
  if (algorithm == ConvAlgorithm::direct) {
    kernels::conv_direct_forward(g, view<float>(in), w.data<float>(), data_or_null<float>(b),
                                 options.relu, mutable_view<float>(y));
    return y;
  }
  if (algorithm == ConvAlgorithm::pixels) {
    kernels::conv_pixels_forward(g, view<float>(in), w.data<float>(), data_or_null<float>(b),
                                 options.relu, mutable_view<float>(y));
    return y;
  }
  if (algorithm == ConvAlgorithm::winograd) {
    kernels::conv_winograd_forward(g, view<float>(in), w.data<float>(), data_or_null<float>(b),
                                   options.relu, mutable_view<float>(y));
    return y;
  }
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

Tensor conv2d_backward(const Tensor& grad, const Tensor& output, const Tensor& x,
                       const Tensor& weight, const Shape& x_shape, const Shape& weight_shape,
                       const Conv2dOptions& options, const Conv2dGrads& wanted,
                       ConvAlgorithm asked) {
  const Shape shape = conv2d_shape(x_shape, weight_shape, options);
  SG_CHECK(grad.shape() == shape, "[conv2d] the gradient is {}, the output {}", grad.shape(),
           shape);
  check_wanted(wanted, weight_shape);
  if (is_on_gpu(grad.device()))
    return conv2d_backward_on_gpu(geometry(x_shape, weight_shape, shape, options), grad, output, x,
                                  weight, options.relu, wanted, asked);
  if (is_half(grad.dtype())) {
    const Conv2dGrads f32{wanted.x, to_f32(wanted.weight), to_f32(wanted.bias)};
    const Tensor dx = conv2d_backward(to_f32(grad), to_f32(output), to_f32(x), to_f32(weight),
                                      x_shape, weight_shape, options, f32, asked);
    if (wanted.weight.defined()) wanted.weight.copy_from(f32.weight);
    if (wanted.bias.defined()) wanted.bias.copy_from(f32.bias);
    return wanted.x ? dx.to(grad.dtype()) : dx;
  }
  const ConvAlgorithm algorithm = resolve(asked, x_shape, weight_shape, grad.dtype(), options);
  Tensor dx;
  if (wanted.x) dx = make_output(x_shape, grad.dtype(), grad.device(), algorithm);
  if (grad.is_meta()) return dx;
  if (grad.numel() == 0 || numel(x_shape) == 0) {
    if (wanted.x) dx.fill(0);
    zero_weight_grads(wanted);
    return dx;
  }
  const ConvGeometry g = geometry(x_shape, weight_shape, shape, options);
  const Tensor w = contiguous_scratch(weight);
  const Tensor in = wanted.weight.defined() ? as_input(x, algorithm) : Tensor();
  if (reads_any_layout(algorithm) || algorithm == ConvAlgorithm::winograd) {
    // The mask of relu is taken as the gradient is read, so both have one layout.
    Tensor dy = as_input(grad, algorithm);
    const Tensor mask = options.relu ? as_input(output, algorithm) : Tensor();
    if (options.relu && dy.strides() != mask.strides()) {
      Scoped kind(current_rank().kind, Kind::buffers);
      dy = Tensor::empty_strided(shape, mask.strides(), grad.dtype(), grad.device());
      dy.copy_from(grad);
    }
    const kernels::ConvGradients grads{mutable_view<float>(dx), data_or_null<float>(wanted.weight),
                                       data_or_null<float>(wanted.bias)};
    if (algorithm != ConvAlgorithm::winograd)
      kernels::conv_direct_backward(g, view<float>(dy), data_or_null<float>(mask), view<float>(in),
                                    data_or_null<float>(w), grads);
    else
      kernels::conv_winograd_backward(g, view<float>(dy), data_or_null<float>(mask), nullptr,
                                      view<float>(in), data_or_null<float>(w), grads);
    return dx;
  }
  Tensor dy;
  {
    Scoped kind(current_rank().kind, Kind::buffers);
    dy = as_input(options.relu ? relu_grad(output, grad) : grad, algorithm);
  }
#if SG_ONEDNN
  if (algorithm == ConvAlgorithm::onednn) {
    if (wanted.x)
      onednn::conv_backward_input(g, dy.data<float>(), w.data<float>(), dx.data<float>());
    if (wanted.weight.defined()) {
      onednn::conv_backward_weight(g, dy.data<float>(), in.data<float>(),
                                   wanted.weight.data<float>(), data_or_null<float>(wanted.bias));
    } else if (wanted.bias.defined()) {
      wanted.bias.copy_from(sum(dy, {0, 2, 3}, false));
    }
    return dx;
  }
#endif
  visit_floating("conv2d", grad.dtype(), [&](auto type) {
    using T = compute_t<typename decltype(type)::type>;
    if (wanted.x)
      kernels::conv_reference_backward_input(g, dy.data<T>(), w.data<T>(), dx.data<T>());
    kernels::conv_reference_backward_weight(
        g, dy.data<T>(), static_cast<const T*>(data_or_null<T>(in)), data_or_null<T>(wanted.weight),
        data_or_null<T>(wanted.bias));
  });
  return dx;
}

bool conv2d_relu_max_pool2d_is_fused(const Shape& x, const Shape& weight, DType dtype,
                                     const Conv2dOptions& conv, const Pool2dOptions& pool,
                                     Device device) {
  using Pair = std::array<std::int64_t, 2>;
  const bool halves = pool.kernel == Pair{2, 2} &&
                      (pool.stride == Pair{2, 2} || pool.stride == Pair{0, 0}) &&
                      pool.padding == Pair{0, 0};
  if (!halves || dtype != DType::f32 || is_on_gpu(device)) return false;
  const ConvAlgorithm algorithm = conv2d_algorithm(x, weight, dtype, conv);
  return reads_any_layout(algorithm) || algorithm == ConvAlgorithm::winograd;
}

MaxPool conv2d_relu_max_pool2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
                               const Conv2dOptions& conv, const Pool2dOptions& pool) {
  SG_CHECK(
      conv2d_relu_max_pool2d_is_fused(x.shape(), weight.shape(), x.dtype(), conv, pool, x.device()),
      "[conv2d_relu_max_pool2d] no fused kernel for input {}, weight {}", describe(x),
      describe(weight));
  check_bias(x, weight, bias);
  const Shape full = conv2d_shape(x.shape(), weight.shape(), conv);
  const Shape shape = pool2d_shape("max_pool2d", full, pool);
  const ConvAlgorithm algorithm = conv2d_algorithm(x.shape(), weight.shape(), x.dtype(), conv);
  const bool last = algorithm == ConvAlgorithm::winograd ||
                    (algorithm == ConvAlgorithm::direct && x.is_channels_last());
  const Strides strides = last ? channels_last_strides(shape) : contiguous_strides(shape);
  MaxPool result{Tensor::empty_strided(shape, strides, x.dtype(), x.device()),
                 Tensor::empty_strided(shape, strides, DType::u8, x.device())};
  if (x.is_meta() || result.output.numel() == 0) return result;
  const Tensor in = as_input(x, algorithm), w = contiguous_scratch(weight),
               b = contiguous_scratch(bias);
  const auto forward = algorithm == ConvAlgorithm::winograd ? kernels::conv_winograd_forward
                       : algorithm == ConvAlgorithm::pixels ? kernels::conv_pixels_forward
                                                            : kernels::conv_direct_forward;
  forward(geometry(x.shape(), weight.shape(), full, conv), view<float>(in), w.data<float>(),
          data_or_null<float>(b), true, mutable_view<float>(result.output),
          result.index.data<std::uint8_t>());
  return result;
}

Tensor conv2d_relu_max_pool2d_backward(const Tensor& grad, const Tensor& index, const Tensor& x,
                                       const Tensor& weight, const Shape& x_shape,
                                       const Shape& weight_shape, const Conv2dOptions& conv,
                                       const Pool2dOptions& pool, const Conv2dGrads& wanted) {
  const Shape full = conv2d_shape(x_shape, weight_shape, conv);
  SG_CHECK(grad.shape() == index.shape() && index.shape() == pool2d_shape("max_pool2d", full, pool),
           "[conv2d_relu_max_pool2d] the gradient is {}, the index {}, the convolution's output {}",
           grad.shape(), index.shape(), full);
  check_wanted(wanted, weight_shape);
  const ConvAlgorithm algorithm = conv2d_algorithm(x_shape, weight_shape, grad.dtype(), conv);
  const ConvGeometry g = geometry(x_shape, weight_shape, full, conv);
  const bool winograd = algorithm == ConvAlgorithm::winograd;
  if (grad.numel() > 0 && (winograd || kernels::conv_sparse_supports(g))) {
    // Read from the pooled gradient, channels-last by Winograd's kernels and row-major by the
    // sparse ones.
    const ConvAlgorithm layout = winograd ? ConvAlgorithm::winograd : ConvAlgorithm::reference;
    Tensor dx;
    if (wanted.x) dx = make_output(x_shape, grad.dtype(), grad.device(), layout);
    if (grad.is_meta()) return dx;
    const Tensor dy = as_input(grad, layout), at = as_input(index, layout),
                 w = contiguous_scratch(weight);
    const Tensor in = !wanted.weight.defined() ? Tensor() : winograd ? as_input(x, layout) : x;
    const kernels::ConvGradients grads{mutable_view<float>(dx), data_or_null<float>(wanted.weight),
                                       data_or_null<float>(wanted.bias)};
    if (winograd)
      kernels::conv_winograd_backward(g, view<float>(dy), nullptr, at.data<std::uint8_t>(),
                                      view<float>(in), data_or_null<float>(w), grads);
    else
      kernels::conv_sparse_backward(g, view<float>(dy), at.data<std::uint8_t>(), view<float>(in),
                                    data_or_null<float>(w), grads);
    return dx;
  }
  Conv2dOptions without_relu = conv;  // an index of 4 says where it let nothing through
  without_relu.relu = false;
  Tensor dy;
  {
    Scoped kind(current_rank().kind, Kind::buffers);
    dy = max_pool2d_backward(grad, index, full, pool);
  }
  return conv2d_backward(dy, {}, x, weight, x_shape, weight_shape, without_relu, wanted);
}

}  // namespace sg::ops
