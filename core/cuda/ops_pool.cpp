// Pooling: which kernel serves. By planes (row-major), every plane is an image of one channel.
#include "core/cuda/context.h"
#include "core/cuda/kernels_image.h"
#include "core/cuda/ops.h"

namespace sg::cuda {
namespace {

using kernels::PoolGeometry;

PoolGeometry as_images(const PoolGeometry& g, bool last) {
  if (last) return g;
  PoolGeometry planes = g;
  planes.n = g.n * g.c;
  planes.c = 1;
  return planes;
}

}  // namespace

void max_pool2d(const PoolGeometry& g, bool last, const Tensor& x, const Tensor& y,
                const Tensor& index) {
  max_pool(on("max_pool2d", y.device()), y.dtype(), index.dtype(), as_images(g, last), x.raw_data(),
           y.raw_data(), index.raw_data());
}

void max_pool2d_backward(const PoolGeometry& g, bool last, const Tensor& grad, const Tensor& index,
                         const Tensor& dx) {
  max_pool_grad(on("max_pool2d", dx.device()), dx.dtype(), index.dtype(), as_images(g, last),
                grad.raw_data(), index.raw_data(), dx.raw_data());
}

void avg_pool2d(const PoolGeometry& g, bool last, const Tensor& x, const Tensor& y) {
  const Launch launch = on("avg_pool2d", y.device());
  const bool whole = g.kh == g.h && g.kw == g.w && g.ph + g.pw == 0;
  if (whole && !last)
    return plane_means(launch, y.dtype(), g.n * g.c, g.h * g.w, x.raw_data(), y.raw_data());
  avg_pool(launch, y.dtype(), as_images(g, last), x.raw_data(), y.raw_data());
}

void avg_pool2d_backward(const PoolGeometry& g, bool last, const Tensor& grad, const Tensor& dx) {
  avg_pool_grad(on("avg_pool2d", dx.device()), dx.dtype(), as_images(g, last), grad.raw_data(),
                dx.raw_data());
}

}  // namespace sg::cuda
