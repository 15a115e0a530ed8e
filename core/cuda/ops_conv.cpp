// Convolutions as matrix products over patches (im2col).
//
// Images are channels-last: a pixel's channels are then neighbours, in patches as in the results of
// products, so that copies into patches are wide and results need no transposition; a convolution
// of 1x1 filters is a product of the image itself. Patches live in scratch memory of a bounded
// size, so a large batch is taken in chunks: of output pixels where each is independent, of whole
// images where an input pixel sums over its neighbours. Convolutions of few channels have kernels
// of their own (conv_direct.cu).
#include <algorithm>

#include "core/cuda/blas.h"
#include "core/cuda/context.h"
#include "core/cuda/kernels_image.h"
#include "core/cuda/kernels_matmul.h"
#include "core/cuda/ops.h"

namespace sg::cuda {
namespace {

using kernels::ConvGeometry;

constexpr std::int64_t kMostScratch = std::int64_t{256} << 20;

std::int64_t item(DType dtype) { return static_cast<std::int64_t>(size_of(dtype)); }

Tensor scratch(std::int64_t count, DType dtype, Device device) {
  const Scoped kind(current_rank().kind, Kind::buffers);
  return Tensor::empty({count}, dtype, device);
}

Tensor channels_last(const Tensor& t) {
  const Scoped kind(current_rank().kind, Kind::buffers);
  return t.channels_last();
}

Tensor contiguous(const Tensor& t) {
  const Scoped kind(current_rank().kind, Kind::buffers);
  return t.defined() ? t.contiguous() : t;
}

// Patches are the pixels themselves.
bool is_pointwise(const ConvGeometry& g) {
  return g.kh * g.kw == 1 && g.sh * g.sw == 1 && g.ph + g.pw == 0;
}

void* at(void* data, std::int64_t elements, DType dtype) {
  return static_cast<char*>(data) + elements * item(dtype);
}

kernels::ImageView<const void> view_of(const Tensor& x) {
  const Strides& s = x.strides();
  return {x.raw_data(), s[0], s[1], s[2], s[3]};
}

// Rows of patches as a product reads and writes them.
struct Patches {
  std::int64_t length, size, between;  // of a group's patch, of a row, between groups' patches
  explicit Patches(const ConvGeometry& g) {
    const PatchRow row = patch_row(g);
    const bool pointwise = is_pointwise(g);
    length = pointwise ? row.length : row.padded;
    size = pointwise ? g.c : row.size();
    between = length;
  }
};

// [O][patch], groups one after the other.
Tensor filters_of(const ConvGeometry& g, const Tensor& weight) {
  const Tensor dense = contiguous(weight);
  if (is_pointwise(g)) return dense;
  const Tensor filters = scratch(g.o * patch_row(g).padded, weight.dtype(), weight.device());
  pack_filters(on("conv2d", weight.device()), weight.dtype(), g, dense.raw_data(),
               filters.raw_data());
  return filters;
}

std::int64_t rows_at_once(const Patches& patches, DType dtype, std::int64_t rows,
                          std::int64_t unit) {
  const std::int64_t most = kMostScratch / (patches.size * item(dtype)) / unit * unit;
  return std::clamp<std::int64_t>(most, std::min(unit, rows), rows);
}

// Calls f(first pixel, count, rows of patches) for all output pixels.
template <class F>
void each_chunk(const ConvGeometry& g, const Tensor& x, F&& f) {
  const Patches patches(g);
  const std::int64_t pixels = g.n * g.oh * g.ow;
  if (is_pointwise(g)) return f(std::int64_t{0}, pixels, channels_last(x).raw_data());
  const std::int64_t chunk = rows_at_once(patches, x.dtype(), pixels, 1);
  const Tensor rows = scratch(chunk * patches.size, x.dtype(), x.device());
  for (std::int64_t first = 0; first < pixels; first += chunk) {
    const std::int64_t count = std::min(chunk, pixels - first);
    im2col(on("conv2d", x.device()), x.dtype(), g, view_of(x), first, count, rows.raw_data());
    f(first, count, rows.raw_data());
  }
}

void weight_gradient(const ConvGeometry& g, const Tensor& dy, const Tensor& x,
                     const Tensor& weight_grad) {
  const Patches patches(g);
  const DType dtype = dy.dtype();
  const std::int64_t outs = g.o / g.groups;
  // One product rounds once; several continue the sums of those before.
  const bool direct = is_pointwise(g);
  const Tensor sums =
      direct ? Tensor() : scratch(g.o * patches.length, sums_dtype(dtype), dy.device());
  each_chunk(g, x, [&](std::int64_t first, std::int64_t count, const void* rows) {
    Gemm p;
    p.dtype = dtype;
    p.out_dtype = direct ? dtype : sums_dtype(dtype);
    p.m = outs;
    p.n = patches.length;
    p.k = count;
    p.batches = g.groups;
    p.a = {at(dy.raw_data(), first * g.o, dtype), g.o, true, outs};
    p.b = {rows, patches.size, false, patches.between};
    p.out = direct ? weight_grad.raw_data() : sums.raw_data();
    p.out_ld = patches.length;
    p.out_stride = outs * patches.length;
    p.accumulate = first > 0;
    gemm("conv2d", dy.device(), p);
  });
  if (!direct)
    unpack_filters(on("conv2d", dy.device()), dtype, g, sums.raw_data(), weight_grad.raw_data());
}

void input_gradient(const ConvGeometry& g, const Tensor& dy, const Tensor& weight,
                    const Tensor& dx) {
  const Patches patches(g);
  const DType dtype = dy.dtype();
  const std::int64_t outs = g.o / g.groups, area = g.oh * g.ow, pixels = g.n * area;
  const bool direct = is_pointwise(g);
  // Parts of a sum are kept as precisely as they are computed.
  const DType parts = direct ? dtype : sums_dtype(dtype);
  const Tensor filters = filters_of(g, weight);
  const std::int64_t chunk = direct ? pixels : rows_at_once(patches, parts, pixels, area);
  const Tensor rows = direct ? Tensor() : scratch(chunk * patches.size, parts, dy.device());
  for (std::int64_t first = 0; first < pixels; first += chunk) {
    const std::int64_t count = std::min(chunk, pixels - first);
    Gemm p;
    p.dtype = dtype;
    p.out_dtype = parts;
    p.m = count;
    p.n = patches.length;
    p.k = outs;
    p.batches = g.groups;
    p.a = {at(dy.raw_data(), first * g.o, dtype), g.o, false, outs};
    p.b = {filters.raw_data(), patches.length, false, outs * patches.length};
    p.out = direct ? dx.raw_data() : rows.raw_data();
    p.out_ld = patches.size;
    p.out_stride = patches.between;
    gemm("conv2d", dy.device(), p);
    if (!direct)
      col2im(on("conv2d", dy.device()), dtype, g, count / area, rows.raw_data(),
             at(dx.raw_data(), first / area * g.h * g.w * g.c, dtype));
  }
}

}  // namespace

bool conv2d_is_direct(const ConvGeometry& g) { return conv_direct_pays(g); }

void conv2d(const ConvGeometry& g, bool direct, const Tensor& x, const Tensor& weight,
            const Tensor& bias, bool relu, const Tensor& y) {
  const DType dtype = y.dtype();
  const Tensor b = contiguous(bias);
  const void* const bias_data = b.defined() ? b.raw_data() : nullptr;
  const Launch launch = on("conv2d", y.device());
  const std::int64_t pixels = g.n * g.oh * g.ow;
  if (g.c == 0) {  // sums of nothing
    y.fill(0);
    return bias_relu(launch, dtype, pixels, g.o, g.o, y.raw_data(), bias_data, relu);
  }
  if (direct) {
    const Tensor w = contiguous(weight);
    return conv_direct(launch, dtype, g, view_of(x), w.raw_data(), bias_data, relu, y.raw_data());
  }
  const Patches patches(g);
  const Tensor filters = filters_of(g, weight);
  const std::int64_t outs = g.o / g.groups;
  // An epilogue is for one product: what a bias is added to must not have been rounded.
  const bool batch = g.groups > 1 && !b.defined() && !relu;
  each_chunk(g, x, [&](std::int64_t first, std::int64_t count, void* rows) {
    for (std::int64_t group = 0; group < (batch ? 1 : g.groups); ++group) {
      Gemm p;
      p.dtype = p.out_dtype = dtype;
      p.m = count;
      p.n = outs;
      p.k = patches.length;
      p.batches = batch ? g.groups : 1;
      p.a = {at(rows, group * patches.between, dtype), patches.size, false, patches.between};
      p.b = {at(filters.raw_data(), group * outs * patches.length, dtype), patches.length, true,
             outs * patches.length};
      p.out = at(y.raw_data(), first * g.o + group * outs, dtype);
      p.out_ld = g.o;
      p.out_stride = outs;
      if (b.defined()) p.bias = at(b.raw_data(), group * outs, dtype);
      p.relu = relu;
      gemm("conv2d", y.device(), p);
    }
  });
}

void conv2d_backward(const ConvGeometry& g, bool direct, const Tensor& grad, const Tensor& x,
                     const Tensor& weight, const Tensor& dx, const Tensor& weight_grad,
                     const Tensor& bias_grad) {
  const Tensor dy = channels_last(grad);
  const Launch launch = on("conv2d", dy.device());
  if (weight_grad.defined() && direct) {
    const Tensor partial =
        scratch(weight_grad.numel() * conv_direct_parts(g), DType::f64, dy.device());
    conv_direct_weight_grad(launch, dy.dtype(), g, dy.raw_data(), view_of(x),
                            static_cast<double*>(partial.raw_data()), weight_grad.raw_data());
  } else if (weight_grad.defined()) {
    weight_gradient(g, dy, x, weight_grad);
  }
  if (bias_grad.defined()) {
    const std::int64_t rows = g.n * g.oh * g.ow;
    const Tensor partial = scratch(column_parts(rows, g.o).size(), DType::f64, dy.device());
    column_sums(launch, dy.dtype(), rows, g.o, dy.raw_data(),
                static_cast<double*>(partial.raw_data()), bias_grad.raw_data());
  }
  if (dx.defined() && direct)
    conv_direct_input_grad(launch, dy.dtype(), g, dy.raw_data(), contiguous(weight).raw_data(),
                           dx.raw_data());
  else if (dx.defined())
    input_gradient(g, dy, weight, dx);
}

}  // namespace sg::cuda
