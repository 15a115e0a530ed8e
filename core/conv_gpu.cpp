#include "core/conv_gpu.h"

#include "core/cuda/ops.h"
#include "core/ops.h"

namespace sg::ops {
namespace {

using kernels::ConvGeometry;

// Channels-last serves every convolution best there (core/cuda/ops_conv.cpp says why).
Tensor make_output(const Shape& shape, DType dtype, Device device, ConvAlgorithm asked) {
  SG_CHECK(asked == ConvAlgorithm::automatic || asked == ConvAlgorithm::reference ||
               asked == ConvAlgorithm::direct,
           "[conv2d] the algorithm {} is one of the CPU's; {} has automatic, reference and direct",
           name_of(asked), name_of(device));
  visit_floating("conv2d", dtype, [](auto) {});
  return Tensor::empty_strided(shape, channels_last_strides(shape), dtype, device);
}

bool is_direct(ConvAlgorithm asked, const ConvGeometry& g) {
  return asked == ConvAlgorithm::direct ||
         (SG_CUDA && asked == ConvAlgorithm::automatic && cuda::conv2d_is_direct(g));
}

}  // namespace

bool is_on_gpu(Device device) {
  return device.is_cuda() || (device.is_meta() && current_rank().device.is_cuda());
}

Tensor conv2d_on_gpu(const ConvGeometry& g, const Tensor& x, const Tensor& weight,
                     const Tensor& bias, bool relu, ConvAlgorithm asked) {
  const Tensor y = make_output({g.n, g.o, g.oh, g.ow}, x.dtype(), x.device(), asked);
  if (SG_CUDA && x.is_cuda() && y.numel() > 0)
    cuda::conv2d(g, is_direct(asked, g), x, weight, bias, relu, y);
  return y;
}

Tensor conv2d_backward_on_gpu(const ConvGeometry& g, const Tensor& grad, const Tensor& output,
                              const Tensor& x, const Tensor& weight, bool relu,
                              const Conv2dGrads& wanted, ConvAlgorithm asked) {
  Tensor dx;
  if (wanted.x) dx = make_output({g.n, g.c, g.h, g.w}, grad.dtype(), grad.device(), asked);
  if (grad.is_meta()) return dx;
  if (grad.numel() == 0 || g.n * g.c * g.h * g.w == 0) {  // sums of nothing
    for (const Tensor* sum : {static_cast<const Tensor*>(&dx), &wanted.weight, &wanted.bias})
      if (sum->defined()) sum->fill(0);
    return dx;
  }
  if (SG_CUDA) {
    const Scoped kind(current_rank().kind, Kind::buffers);
    const Tensor dy = relu ? relu_grad(output, grad) : grad;
    // The final place of a gradient may be of another dtype.
    const auto place = [&](const Tensor& t) {
      return !t.defined() || t.dtype() == grad.dtype()
                 ? t
                 : Tensor::empty(t.shape(), grad.dtype(), t.device());
    };
    const Tensor dw = place(wanted.weight), db = place(wanted.bias);
    cuda::conv2d_backward(g, is_direct(asked, g), dy, x, weight, dx, dw, db);
    if (dw.defined() && dw.dtype() != wanted.weight.dtype()) wanted.weight.copy_from(dw);
    if (db.defined() && db.dtype() != wanted.bias.dtype()) wanted.bias.copy_from(db);
  }
  return dx;
}

}  // namespace sg::ops
