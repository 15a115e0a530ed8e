// Pooling: shapes, layouts and threads around the loops of core/kernels/pool.h.
#include "core/conv.h"
#include "core/cuda/ops.h"
#include "core/kernels/pool.h"
#include "core/parallel.h"

namespace sg::ops {
namespace {

using kernels::PoolGeometry;

std::array<std::int64_t, 2> stride_of(const Pool2dOptions& o) {
  return {o.stride[0] == 0 ? o.kernel[0] : o.stride[0],
          o.stride[1] == 0 ? o.kernel[1] : o.stride[1]};
}

PoolGeometry geometry(const Shape& x, const Shape& y, const Pool2dOptions& o) {
  const auto stride = stride_of(o);
  return {x[0], x[1], x[2],      x[3],      o.kernel[0],  o.kernel[1],
          y[2], y[3], stride[0], stride[1], o.padding[0], o.padding[1]};
}

Strides layout(const Shape& shape, bool channels_last) {
  return channels_last ? channels_last_strides(shape) : contiguous_strides(shape);
}

Tensor in_layout(const Tensor& t, bool channels_last) {
  Scoped kind(current_rank().kind, Kind::buffers);
  return channels_last ? t.channels_last() : t.contiguous();
}

// Calls images(first, count) or planes(first, count) in parallel, whichever the layout has.
template <class Images, class Planes>
void run(const PoolGeometry& g, bool channels_last, Images&& images, Planes&& planes) {
  if (channels_last)
    parallel_for(g.n, 1, [&](std::int64_t begin, std::int64_t end) { images(begin, end - begin); });
  else
    parallel_for(g.n * g.c, std::max<std::int64_t>(1, 8192 / std::max<std::int64_t>(g.h * g.w, 1)),
                 [&](std::int64_t begin, std::int64_t end) { planes(begin, end - begin); });
}

template <class F>
void visit_index(DType index, F&& f) {
  if (index == DType::u8)
    f(Type<std::uint8_t>{});
  else
    f(Type<std::int32_t>{});
}

void check_gradient(const char* op, const Shape& grad, const Shape& expected) {
  SG_CHECK(grad == expected, "[{}] the gradient is {}, the output {}", op, grad, expected);
}

}  // namespace

Shape pool2d_shape(const char* op, const Shape& x, const Pool2dOptions& o) {
  SG_CHECK(x.size() == 4, "[{}] input {} is not [N, C, H, W]", op, x);
  const auto stride = stride_of(o);
  Shape y{x[0], x[1], 0, 0};
  for (int i = 0; i < 2; ++i) {
    const auto at = static_cast<std::size_t>(i);
    SG_CHECK(o.kernel[at] >= 1 && stride[at] >= 1,
             "[{}] kernel [{}, {}] and stride [{}, {}] must be at least 1", op, o.kernel[0],
             o.kernel[1], stride[0], stride[1]);
    SG_CHECK(o.padding[at] >= 0 && 2 * o.padding[at] <= o.kernel[at],
             "[{}] padding [{}, {}] must be between 0 and half the kernel [{}, {}]", op,
             o.padding[0], o.padding[1], o.kernel[0], o.kernel[1]);
    const std::int64_t padded = x[2 + i] + 2 * o.padding[at];
    SG_CHECK(o.kernel[at] <= padded,
             "[{}] kernel {} in dimension {} is more than input {} with padding {} has: {}", op,
             o.kernel[at], 2 + i, x, o.padding[at], padded);
    y[2 + i] = (padded - o.kernel[at]) / stride[at] + 1;
  }
  return y;
}

MaxPool max_pool2d(const Tensor& x, const Pool2dOptions& options) {
  const Shape shape = pool2d_shape("max_pool2d", x.shape(), options);
  if (is_half(x.dtype()) && !x.is_cuda()) {
    MaxPool pool = max_pool2d(x.to(DType::f32), options);
    pool.output = pool.output.to(x.dtype());
    return pool;
  }
  const bool last = x.is_channels_last();
  const DType index = options.kernel[0] * options.kernel[1] <= 256 ? DType::u8 : DType::i32;
  MaxPool pool{Tensor::empty_strided(shape, layout(shape, last), x.dtype(), x.device()),
               Tensor::empty_strided(shape, layout(shape, last), index, x.device())};
  if (x.is_meta() || pool.output.numel() == 0) return pool;
  const PoolGeometry g = geometry(x.shape(), shape, options);
  const Tensor in = in_layout(x, last);
  if (SG_CUDA && x.is_cuda()) {
    cuda::max_pool2d(g, last, in, pool.output, pool.index);
    return pool;
  }
  visit_floating("max_pool2d", x.dtype(), [&](auto type) {
    using T = compute_t<typename decltype(type)::type>;
    visit_index(index, [&](auto index_type) {
      using I = typename decltype(index_type)::type;
      const auto& loops = kernels::max_pool_loops<T, I>();
      const T* from = in.data<T>();
      T* to = pool.output.data<T>();
      I* at = pool.index.data<I>();
      const std::int64_t area = g.h * g.w, out = g.oh * g.ow;
      run(
          g, last,
          [&](std::int64_t i, std::int64_t count) {
            loops.forward_images(g, from + i * g.c * area, to + i * g.c * out, at + i * g.c * out,
                                 count);
          },
          [&](std::int64_t i, std::int64_t count) {
            loops.forward_planes(g, from + i * area, to + i * out, at + i * out, count);
          });
    });
  });
  return pool;
}

Tensor max_pool2d_backward(const Tensor& grad, const Tensor& index, const Shape& x_shape,
                           const Pool2dOptions& options) {
  check_gradient("max_pool2d", grad.shape(), pool2d_shape("max_pool2d", x_shape, options));
  check_gradient("max_pool2d", grad.shape(), index.shape());
  if (is_half(grad.dtype()) && !grad.is_cuda())
    return max_pool2d_backward(grad.to(DType::f32), index, x_shape, options).to(grad.dtype());
  const bool last =
      index.is_channels_last() || (grad.is_channels_last() && index.is_contiguous() &&
                                   channels_last_strides(grad.shape()) == index.strides());
  Tensor dx = Tensor::empty_strided(x_shape, layout(x_shape, last), grad.dtype(), grad.device());
  if (dx.is_meta() || dx.numel() == 0) return dx;
  const PoolGeometry g = geometry(x_shape, grad.shape(), options);
  const Tensor dy = in_layout(grad, last);
  if (SG_CUDA && dx.is_cuda()) {
    cuda::max_pool2d_backward(g, last, dy, index, dx);
    return dx;
  }
  visit_floating("max_pool2d", grad.dtype(), [&](auto type) {
    using T = compute_t<typename decltype(type)::type>;
    visit_index(index.dtype(), [&](auto index_type) {
      using I = typename decltype(index_type)::type;
      const auto& loops = kernels::max_pool_loops<T, I>();
      const T* from = dy.data<T>();
      const I* at = index.data<I>();
      T* to = dx.data<T>();
      const std::int64_t area = g.h * g.w, out = g.oh * g.ow;
      run(
          g, last,
          [&](std::int64_t i, std::int64_t count) {
            loops.backward_images(g, from + i * g.c * out, at + i * g.c * out, to + i * g.c * area,
                                  count);
          },
          [&](std::int64_t i, std::int64_t count) {
            loops.backward_planes(g, from + i * out, at + i * out, to + i * area, count);
          });
    });
  });
  return dx;
}

Tensor avg_pool2d(const Tensor& x, const Pool2dOptions& options) {
  const Shape shape = pool2d_shape("avg_pool2d", x.shape(), options);
  if (is_half(x.dtype()) && !x.is_cuda())
    return avg_pool2d(x.to(DType::f32), options).to(x.dtype());
  const bool last = x.is_channels_last();
  Tensor y = Tensor::empty_strided(shape, layout(shape, last), x.dtype(), x.device());
  if (x.is_meta() || y.numel() == 0) return y;
  const PoolGeometry g = geometry(x.shape(), shape, options);
  const Tensor in = in_layout(x, last);
  if (SG_CUDA && x.is_cuda()) {
    cuda::avg_pool2d(g, last, in, y);
    return y;
  }
  visit_floating("avg_pool2d", x.dtype(), [&](auto type) {
    using T = compute_t<typename decltype(type)::type>;
    const auto& loops = kernels::avg_pool_loops<T>();
    const T* from = in.data<T>();
    T* to = y.data<T>();
    const std::int64_t area = g.h * g.w, out = g.oh * g.ow;
    run(
        g, last,
        [&](std::int64_t i, std::int64_t count) {
          loops.forward_images(g, from + i * g.c * area, to + i * g.c * out, count);
        },
        [&](std::int64_t i, std::int64_t count) {
          loops.forward_planes(g, from + i * area, to + i * out, count);
        });
  });
  return y;
}

Tensor avg_pool2d_backward(const Tensor& grad, const Shape& x_shape, const Pool2dOptions& options) {
  check_gradient("avg_pool2d", grad.shape(), pool2d_shape("avg_pool2d", x_shape, options));
  if (is_half(grad.dtype()) && !grad.is_cuda())
    return avg_pool2d_backward(grad.to(DType::f32), x_shape, options).to(grad.dtype());
  const bool last = grad.is_channels_last();
  Tensor dx = Tensor::empty_strided(x_shape, layout(x_shape, last), grad.dtype(), grad.device());
  if (dx.is_meta() || dx.numel() == 0) return dx;
  const PoolGeometry g = geometry(x_shape, grad.shape(), options);
  const Tensor dy = in_layout(grad, last);
  if (SG_CUDA && dx.is_cuda()) {
    cuda::avg_pool2d_backward(g, last, dy, dx);
    return dx;
  }
  visit_floating("avg_pool2d", grad.dtype(), [&](auto type) {
    using T = compute_t<typename decltype(type)::type>;
    const auto& loops = kernels::avg_pool_loops<T>();
    const T* from = dy.data<T>();
    T* to = dx.data<T>();
    const std::int64_t area = g.h * g.w, out = g.oh * g.ow;
    run(
        g, last,
        [&](std::int64_t i, std::int64_t count) {
          loops.backward_images(g, from + i * g.c * out, to + i * g.c * area, count);
        },
        [&](std::int64_t i, std::int64_t count) {
          loops.backward_planes(g, from + i * out, to + i * area, count);
        });
  });
  return dx;
}

Tensor global_avg_pool2d(const Tensor& x) {
  SG_CHECK(x.dim_count() == 4, "[global_avg_pool2d] input {} is not [N, C, H, W]", x.shape());
  return avg_pool2d(x, {.kernel = {x.size(2), x.size(3)}});
}

Tensor global_avg_pool2d_backward(const Tensor& grad, const Shape& x_shape, bool channels_last) {
  SG_CHECK(grad.shape() == (Shape{x_shape[0], x_shape[1], 1, 1}),
           "[global_avg_pool2d] the gradient is {}, the output [{}, {}, 1, 1]", grad.shape(),
           x_shape[0], x_shape[1]);
  Tensor dx =
      Tensor::empty_strided(x_shape, layout(x_shape, channels_last), grad.dtype(), grad.device());
  if (dx.is_meta() || dx.numel() == 0) return dx;
  const Tensor dy = in_layout(grad, false);
  const std::int64_t channels = x_shape[1], area = x_shape[2] * x_shape[3];
  if (SG_CUDA && dx.is_cuda()) {
    const Pool2dOptions whole{.kernel = {x_shape[2], x_shape[3]}};
    cuda::avg_pool2d_backward(geometry(x_shape, grad.shape(), whole), channels_last, dy, dx);
    return dx;
  }
  visit_floating("global_avg_pool2d", grad.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    const C scale = C(1) / static_cast<C>(area);
    const T* from = dy.data<T>();
    T* to = dx.data<T>();
    parallel_for(x_shape[0], 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t n = begin; n < end; ++n) {
        const T* row = from + n * channels;
        T* image = to + n * channels * area;
        for (std::int64_t i = 0; i < channels * area; ++i) {
          const std::int64_t c = channels_last ? i % channels : i / area;
          image[i] = T(static_cast<C>(row[c]) * scale);
        }
      }
    });
  });
  return dx;
}

}  // namespace sg::ops
