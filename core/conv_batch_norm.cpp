// Batch normalisation: layouts, threads and statistics around the loops of
// core/kernels/batch_norm.h.
#include <cmath>
#include <vector>

#include "core/conv.h"
#include "core/cuda/ops.h"
#include "core/kernels/batch_norm.h"
#include "core/parallel.h"

namespace sg::ops {
namespace {

using kernels::BatchNormParams;

DType statistics_dtype(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

void check_channels(const char* what, const Tensor& t, std::int64_t channels) {
  if (!t.defined()) return;
  SG_CHECK(t.shape() == Shape{channels}, "[batch_norm] {} is {}, expected [{}]", what, t.shape(),
           channels);
}

std::int64_t check_input(const Tensor& x) {
  SG_CHECK(x.dim_count() == 4 || x.dim_count() == 2,
           "[batch_norm] input {} is neither [N, C, H, W] nor [N, C]", x.shape());
  return x.size(1);
}

// How values lie: rows of all channels (channels-last, or no pixels), or images of planes.
struct Layout {
  std::int64_t images, channels, area;
  bool rows;
  explicit Layout(const Tensor& x)
      : images(x.size(0)),
        channels(x.size(1)),
        area(x.dim_count() == 4 ? x.size(2) * x.size(3) : 1),
        rows(area == 1 || x.is_channels_last()) {}
  std::int64_t count() const { return images * area; }  ///< values of one channel
};

// `t` with the memory order of `like`, which is row-major or channels-last.
Tensor in_layout(const Tensor& t, const Layout& layout) {
  Scoped kind(current_rank().kind, Kind::buffers);
  return layout.rows && t.dim_count() == 4 && layout.area > 1 ? t.channels_last() : t.contiguous();
}

Tensor output_like(const Tensor& x, const Layout& layout) {
  const bool last = layout.rows && x.dim_count() == 4;
  return Tensor::empty_strided(
      x.shape(), last ? channels_last_strides(x.shape()) : contiguous_strides(x.shape()), x.dtype(),
      x.device());
}

BatchNorm make_result(const Tensor& x, const Layout& layout) {
  const DType dtype = statistics_dtype(x.dtype());
  return {output_like(x, layout), Tensor::empty({layout.channels}, dtype, x.device()),
          Tensor::empty({layout.channels}, dtype, x.device())};
}

// Calls rows(part, first row, rows) in parallel parts, or planes(channel, offset of a run, length)
// for every run of every channel, channels in parallel and a channel's images in order.
template <class Rows, class Planes>
void run(const Layout& l, std::int64_t parts, Rows&& rows, Planes&& planes) {
  if (l.rows) {
    parallel_for(parts, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t part = begin; part < end; ++part) {
        const std::int64_t first = l.count() * part / parts, last = l.count() * (part + 1) / parts;
        rows(part, first, last - first);
      }
    });
    return;
  }
  parallel_for(l.channels, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t c = begin; c < end; ++c)
      for (std::int64_t n = 0; n < l.images; ++n) planes(c, (n * l.channels + c) * l.area, l.area);
  });
}

std::int64_t parts_of(const Layout& l) {
  const std::int64_t most = std::max<std::int64_t>(l.count() * l.channels / 8192, 1);
  return std::min<std::int64_t>(current_rank().threads, most);
}

// Two sums a channel. Parts are added in order.
struct Sums {
  std::vector<double> first, second;
  std::int64_t channels;
  Sums(std::int64_t parts, std::int64_t channels_)
      : first(static_cast<std::size_t>(parts * channels_)), second(first), channels(channels_) {}
  double* at(std::vector<double>& v, std::int64_t part) { return v.data() + part * channels; }
  void fold(std::int64_t parts) {
    for (std::int64_t part = 1; part < parts; ++part)
      for (std::int64_t c = 0; c < channels; ++c) {
        at(first, 0)[c] += at(first, part)[c];
        at(second, 0)[c] += at(second, part)[c];
      }
  }
};

// weight and bias as T, with 1 and 0 where undefined.
template <class T>
std::vector<T> values(const Tensor& t, std::int64_t channels, T otherwise) {
  if (!t.defined()) return std::vector<T>(static_cast<std::size_t>(channels), otherwise);
  return t.to_vector<T>();
}

// The factors of y = (x - mean) * scale + bias.
template <class T>
struct Factors {
  std::vector<T> mean, scale, bias;
  Factors(const Tensor& mean_, const Tensor& invstd, const Tensor& weight, const Tensor& bias_,
          std::int64_t c)
      : mean(values<T>(mean_, c, T(0))),
        scale(values<T>(weight, c, T(1))),
        bias(values<T>(bias_, c, T(0))) {
    const std::vector<T> inverse = invstd.to_vector<T>();
    for (std::size_t i = 0; i < scale.size(); ++i) scale[i] *= inverse[i];
  }
  BatchNormParams<T> params(std::int64_t c, bool relu) const {
    return {mean.data() + c, scale.data() + c, bias.data() + c, relu};
  }
};

template <class T>
void normalize(const Tensor& x, const Tensor& y, const Layout& l, const Factors<T>& factors,
               bool relu) {
  const auto& loops = kernels::batch_norm_loops<T>();
  const T* from = x.data<T>();
  T* to = y.data<T>();
  run(
      l, parts_of(l),
      [&](std::int64_t, std::int64_t first, std::int64_t rows) {
        loops.normalize(from + first * l.channels, to + first * l.channels, rows, l.channels,
                        factors.params(0, relu));
      },
      [&](std::int64_t c, std::int64_t offset, std::int64_t length) {
        loops.normalize(from + offset, to + offset, length, 1, factors.params(c, relu));
      });
}

template <class T>
void statistics(const Tensor& x, const Layout& l, const Tensor& mean, const Tensor& var) {
  const auto& loops = kernels::batch_norm_loops<T>();
  const std::int64_t parts = l.rows ? parts_of(l) : 1;
  const T* from = x.data<T>();
  Sums sums(parts, l.channels);
  // The first value of each channel is near enough to its mean.
  std::vector<T> shift(static_cast<std::size_t>(l.channels));
  for (std::int64_t c = 0; c < l.channels; ++c)
    shift[static_cast<std::size_t>(c)] = from[l.rows ? c : c * l.area];
  run(
      l, parts,
      [&](std::int64_t part, std::int64_t first, std::int64_t rows) {
        loops.statistics(from + first * l.channels, rows, l.channels, shift.data(),
                         sums.at(sums.first, part), sums.at(sums.second, part));
      },
      [&](std::int64_t c, std::int64_t offset, std::int64_t length) {
        loops.statistics(from + offset, length, 1, shift.data() + c, sums.at(sums.first, 0) + c,
                         sums.at(sums.second, 0) + c);
      });
  sums.fold(parts);
  const double count = static_cast<double>(l.count());
  for (std::int64_t c = 0; c < l.channels; ++c) {
    const auto i = static_cast<std::size_t>(c);
    const double shifted = sums.first[i] / count;
    mean.data<T>()[c] = static_cast<T>(static_cast<double>(shift[i]) + shifted);
    var.data<T>()[c] = static_cast<T>(std::max(sums.second[i] / count - shifted * shifted, 0.0));
  }
}

// running = (1 - momentum) running + momentum batch, in any floating dtype.
void move_running(const Tensor& running, const Tensor& batch, double momentum, double factor) {
  if (!running.defined()) return;
  std::vector<double> now = running.to_doubles();
  const std::vector<double> latest = batch.to_doubles();
  for (std::size_t i = 0; i < now.size(); ++i)
    now[i] = (1 - momentum) * now[i] + momentum * factor * latest[i];
  running.copy_from(Tensor::from(now, running.shape()));
}

}  // namespace

BatchNorm batch_norm_training(const Tensor& x, const Tensor& weight, const Tensor& bias,
                              const Tensor& running_mean, const Tensor& running_var,
                              double momentum, double eps, bool relu, bool update) {
  const std::int64_t channels = check_input(x);
  check_channels("weight", weight, channels);
  check_channels("bias", bias, channels);
  check_channels("running_mean", running_mean, channels);
  check_channels("running_var", running_var, channels);
  const Layout shape(x);
  SG_CHECK(shape.count() > 1,
           "[batch_norm] training needs more than one value a channel, got input {}", x.shape());
  if (SG_CUDA && x.is_cuda()) {
    const Tensor in = in_layout(x, shape), none;
    const Layout l(in);
    const BatchNorm result = make_result(in, l);
    cuda::batch_norm_training(in, l.rows, weight, bias, update ? running_mean : none,
                              update ? running_var : none, momentum, eps, relu, result.output,
                              result.mean, result.invstd);
    return result;
  }
  if (is_half(x.dtype())) {
    const auto f32 = [](const Tensor& t) { return t.defined() ? t.to(DType::f32) : t; };
    BatchNorm result = batch_norm_training(x.to(DType::f32), f32(weight), f32(bias), running_mean,
                                           running_var, momentum, eps, relu, update);
    result.output = result.output.to(x.dtype());
    return result;
  }
  const Tensor in = in_layout(x, shape);
  const Layout l(in);
  BatchNorm result = make_result(in, l);
  if (x.is_meta()) return result;
  visit_floating("batch_norm", x.dtype(), [&](auto type) {
    using T = compute_t<typename decltype(type)::type>;
    const Tensor& var = result.invstd;
    statistics<T>(in, l, result.mean, var);
    if (update) {
      const double count = static_cast<double>(l.count());
      move_running(running_mean, result.mean, momentum, 1);
      move_running(running_var, var, momentum, count / (count - 1));
    }
    for (std::int64_t c = 0; c < channels; ++c) {
      T& v = var.data<T>()[c];
      v = static_cast<T>(1 / std::sqrt(static_cast<double>(v) + eps));
    }
    const Factors<T> factors(result.mean, result.invstd, weight, bias, channels);
    normalize<T>(in, result.output, l, factors, relu);
  });
  return result;
}

BatchNorm batch_norm_inference(const Tensor& x, const Tensor& weight, const Tensor& bias,
                               const Tensor& running_mean, const Tensor& running_var, double eps,
                               bool relu) {
  const std::int64_t channels = check_input(x);
  SG_CHECK(running_mean.defined() && running_var.defined(),
           "[batch_norm] inference needs running_mean and running_var; without them use training = "
           "true");
  check_channels("weight", weight, channels);
  check_channels("bias", bias, channels);
  check_channels("running_mean", running_mean, channels);
  check_channels("running_var", running_var, channels);
  if (SG_CUDA && x.is_cuda()) {
    const Tensor in = in_layout(x, Layout(x));
    const Layout l(in);
    const BatchNorm result = make_result(in, l);
    cuda::batch_norm_inference(in, l.rows, weight, bias, running_mean, running_var, eps, relu,
                               result.output, result.mean, result.invstd);
    return result;
  }
  if (is_half(x.dtype())) {
    const auto f32 = [](const Tensor& t) { return t.defined() ? t.to(DType::f32) : t; };
    BatchNorm result = batch_norm_inference(x.to(DType::f32), f32(weight), f32(bias), running_mean,
                                            running_var, eps, relu);
    result.output = result.output.to(x.dtype());
    return result;
  }
  const Tensor in = in_layout(x, Layout(x));
  const Layout l(in);
  BatchNorm result = make_result(in, l);
  if (x.is_meta()) return result;
  visit_floating("batch_norm", x.dtype(), [&](auto type) {
    using T = compute_t<typename decltype(type)::type>;
    const std::vector<double> mean = running_mean.to_doubles(), var = running_var.to_doubles();
    for (std::size_t c = 0; c < mean.size(); ++c) {
      result.mean.data<T>()[c] = static_cast<T>(mean[c]);
      result.invstd.data<T>()[c] = static_cast<T>(1 / std::sqrt(var[c] + eps));
    }
    if (l.count() == 0) return;
    const Factors<T> factors(result.mean, result.invstd, weight, bias, channels);
    normalize<T>(in, result.output, l, factors, relu);
  });
  return result;
}

Tensor batch_norm_backward(const Tensor& grad, const Tensor& x, const Tensor& weight,
                           const Tensor& bias, const Tensor& mean, const Tensor& invstd,
                           bool training, bool relu, bool wants_x, const Tensor& weight_grad,
                           const Tensor& bias_grad) {
  check_same_dtype("batch_norm", grad, x);
  SG_CHECK(grad.shape() == x.shape(), "[batch_norm] the gradient is {}, the output {}",
           grad.shape(), x.shape());
  if (SG_CUDA && x.is_cuda()) {
    const Tensor in = in_layout(x, Layout(x));
    const Layout l(in);
    const Tensor dx = wants_x ? output_like(in, l) : Tensor();
    cuda::batch_norm_backward(in_layout(grad, l), in, l.rows, weight, bias, mean, invstd, training,
                              relu, dx, weight_grad, bias_grad);
    return dx;
  }
  if (is_half(x.dtype())) {
    const auto f32 = [](const Tensor& t) { return t.defined() ? t.to(DType::f32) : t; };
    const Tensor dw = f32(weight_grad), db = f32(bias_grad);
    const Tensor dx = batch_norm_backward(f32(grad), f32(x), f32(weight), f32(bias), mean, invstd,
                                          training, relu, wants_x, dw, db);
    if (dw.defined()) weight_grad.copy_from(dw);
    if (db.defined()) bias_grad.copy_from(db);
    return dx.defined() ? dx.to(x.dtype()) : dx;
  }
  const Tensor in = in_layout(x, Layout(x));
  const Layout l(in);
  Tensor dx;
  if (wants_x) dx = output_like(in, l);
  if (x.is_meta()) return dx;
  const Tensor dy = in_layout(grad, l);
  visit_floating("batch_norm", x.dtype(), [&](auto type) {
    using T = compute_t<typename decltype(type)::type>;
    const auto& loops = kernels::batch_norm_loops<T>();
    const Factors<T> factors(mean, invstd, weight, bias, l.channels);
    const std::vector<T> inverse = invstd.to_vector<T>();
    const T* px = in.data<T>();
    const T* pdy = dy.data<T>();
    const std::int64_t parts = l.rows ? parts_of(l) : 1;
    std::vector<T> offset(static_cast<std::size_t>(l.channels)), slope(offset);
    if (training || weight_grad.defined() || bias_grad.defined()) {
      Sums sums(parts, l.channels);
      run(
          l, parts,
          [&](std::int64_t part, std::int64_t first, std::int64_t rows) {
            loops.reduce(px + first * l.channels, pdy + first * l.channels, rows, l.channels,
                         factors.params(0, relu), sums.at(sums.first, part),
                         sums.at(sums.second, part));
          },
          [&](std::int64_t c, std::int64_t start, std::int64_t length) {
            loops.reduce(px + start, pdy + start, length, 1, factors.params(c, relu),
                         sums.at(sums.first, 0) + c, sums.at(sums.second, 0) + c);
          });
      sums.fold(parts);
      const double count = static_cast<double>(l.count());
      for (std::int64_t c = 0; c < l.channels; ++c) {
        const auto i = static_cast<std::size_t>(c);
        const double inv = static_cast<double>(inverse[i]);
        if (weight_grad.defined()) weight_grad.data<T>()[c] = static_cast<T>(sums.second[i] * inv);
        if (bias_grad.defined()) bias_grad.data<T>()[c] = static_cast<T>(sums.first[i]);
        if (!training) continue;
        offset[i] = static_cast<T>(sums.first[i] / count);
        slope[i] = static_cast<T>(sums.second[i] / count * inv * inv);
      }
    }
    if (!wants_x) return;
    T* to = dx.data<T>();
    run(
        l, parts_of(l),
        [&](std::int64_t, std::int64_t first, std::int64_t rows) {
          const std::int64_t at = first * l.channels;
          loops.input_gradient(px + at, pdy + at, to + at, rows, l.channels,
                               factors.params(0, relu), offset.data(), slope.data());
        },
        [&](std::int64_t c, std::int64_t start, std::int64_t length) {
          loops.input_gradient(px + start, pdy + start, to + start, length, 1,
                               factors.params(c, relu), offset.data() + c, slope.data() + c);
        });
  });
  return dx;
}

}  // namespace sg::ops
