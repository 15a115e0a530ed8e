// Ops over rows: the last dimension, or several last ones, contiguous. Other dimensions are moved
// there first. 16-bit values are computed in f32.
#include <algorithm>
#include <cstring>
#include <vector>

#include "core/cuda/ops.h"
#include "core/kernels/blocks.h"
#include "core/kernels/row_kernels.h"
#include "core/ops.h"
#include "core/parallel.h"

namespace sg::ops {
namespace {

using cuda::RowOp;
using kernels::loops_of;
using kernels::row_kernels;

// What the loops read; the GPU reads 16-bit values as such.
Tensor widened(const Tensor& x) {
  return is_half(x.dtype()) && !x.is_cuda() ? x.to(DType::f32) : x;
}

// Dimension `dim` last and contiguous; back() undoes the move.
struct Rows {
  Tensor values;
  Dims order, inverse;

  Rows(std::string_view op, const Tensor& x, std::int64_t dim) {
    SG_CHECK(is_floating(x.dtype()), "[{}] needs a floating dtype, got {}; cast it first", op,
             describe(x));
    const int d = normalize_dim(op, dim, x.dim_count());
    for (int i = 0; i < x.dim_count(); ++i)
      if (i != d) order.push_back(i);
    order.push_back(d);
    inverse = Dims::filled(order.size(), 0);
    for (int i = 0; i < order.size(); ++i) inverse[static_cast<int>(order[i])] = i;
    values = widened(x.permute(order)).contiguous();
  }
  Tensor back(const Tensor& y, DType dtype) const { return y.to(dtype).permute(inverse); }
};

template <class F>
Tensor map_rows(std::string_view op, RowOp row_op, const Tensor& x, std::int64_t dim,
                const Tensor* grad, const F& f) {
  const Rows rows(op, x, dim);
  const Tensor g = grad != nullptr ? Rows(op, *grad, dim).values : Tensor();
  const Tensor out = Tensor::empty(rows.values.shape(), rows.values.dtype(), x.device());
  if (!x.is_meta() && x.numel() > 0) {
    const std::int64_t n = rows.values.shape().back();
    if (SG_CUDA && x.is_cuda()) {
      cuda::row_op(row_op, n, rows.values, g, out);
      return rows.back(out, x.dtype());
    }
    visit_wide(op, rows.values.dtype(), [&](auto type) {
      using T = typename decltype(type)::type;
      const T* from = rows.values.data<T>();
      const T* from_grad = g.defined() ? g.data<T>() : nullptr;
      T* to = out.data<T>();
      parallel_for(out.numel() / n, kernels::row_grain(n),
                   [&](std::int64_t begin, std::int64_t end) {
                     f(loops_of<T>(row_kernels()), from + begin * n,
                       from_grad == nullptr ? nullptr : from_grad + begin * n, to + begin * n,
                       end - begin, n);
                   });
    });
  }
  return rows.back(out, x.dtype());
}

}  // namespace

Tensor softmax(const Tensor& x, std::int64_t dim) {
  return map_rows("softmax", RowOp::softmax, x, dim, nullptr,
                  [](const auto& loops, auto* from, auto*, auto* to, auto rows, auto n) {
                    loops.softmax(from, to, rows, n);
                  });
}

Tensor softmax_grad(const Tensor& y, const Tensor& grad, std::int64_t dim) {
  return map_rows("softmax", RowOp::softmax_grad, y, dim, &grad,
                  [](const auto& loops, auto* from, auto* g, auto* to, auto rows, auto n) {
                    loops.softmax_grad(from, g, to, rows, n);
                  });
}

Tensor log_softmax(const Tensor& x, std::int64_t dim) {
  return map_rows("log_softmax", RowOp::log_softmax, x, dim, nullptr,
                  [](const auto& loops, auto* from, auto*, auto* to, auto rows, auto n) {
                    loops.log_softmax(from, to, rows, n);
                  });
}

Tensor log_softmax_grad(const Tensor& y, const Tensor& grad, std::int64_t dim) {
  return map_rows("log_softmax", RowOp::log_softmax_grad, y, dim, &grad,
                  [](const auto& loops, auto* from, auto* g, auto* to, auto rows, auto n) {
                    loops.log_softmax_grad(from, g, to, rows, n);
                  });
}

namespace {

// Rows of layer_norm's argument: shape[0 .. rank - k) of them, of numel(normalized) values.
std::int64_t check_normalized(const Tensor& x, const Shape& normalized) {
  const int k = normalized.size(), rank = x.dim_count();
  bool fits = k >= 1 && k <= rank;
  for (int i = 0; fits && i < k; ++i) fits = x.shape()[rank - k + i] == normalized[i];
  SG_CHECK(fits, "[layer_norm] the last dimensions of {} are not {}", x.shape(), normalized);
  return x.numel() / std::max<std::int64_t>(numel(normalized), 1);
}

Shape leading(const Shape& shape, int count) {
  return Shape(std::span(shape.begin(), shape.begin() + count));
}

template <class T>
const T* data_or_null(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

}  // namespace

LayerNorm layer_norm(const Tensor& x, const Shape& normalized, const Tensor& weight,
                     const Tensor& bias, double eps) {
  const std::int64_t rows = check_normalized(x, normalized);
  for (const Tensor* p : {&weight, &bias}) {
    if (!p->defined()) continue;
    check_same_dtype("layer_norm", x, *p);
    SG_CHECK(p->shape() == normalized, "[layer_norm] weight and bias must have shape {}, got {}",
             normalized, p->shape());
  }
  SG_CHECK(is_floating(x.dtype()), "[layer_norm] needs a floating dtype, got {}; cast it first",
           describe(x));
  const DType wide = is_half(x.dtype()) ? DType::f32 : x.dtype();
  const Shape lead = leading(x.shape(), x.dim_count() - normalized.size());
  LayerNorm result{Tensor::empty(x.shape(), x.is_cuda() ? x.dtype() : wide, x.device()),
                   Tensor::empty(lead, wide, x.device()), Tensor::empty(lead, wide, x.device())};
  const std::int64_t n = numel(normalized);
  if (!x.is_meta() && x.numel() > 0) {
    const Tensor in = widened(x).contiguous();
    const Tensor w = weight.defined() ? widened(weight).contiguous() : weight;
    const Tensor b = bias.defined() ? widened(bias).contiguous() : bias;
    if (SG_CUDA && x.is_cuda()) {
      cuda::layer_norm(n, in, w, b, eps, result.y, result.mean, result.rstd);
      return result;
    }
    visit_wide("layer_norm", wide, [&](auto type) {
      using T = typename decltype(type)::type;
      const T *from = in.data<T>(), *pw = data_or_null<T>(w), *pb = data_or_null<T>(b);
      T *to = result.y.data<T>(), *mean = result.mean.data<T>(), *rstd = result.rstd.data<T>();
      parallel_for(rows, kernels::row_grain(n), [&](std::int64_t begin, std::int64_t end) {
        loops_of<T>(row_kernels())
            .layer_norm(from + begin * n, pw, pb, to + begin * n, end - begin, n,
                        static_cast<T>(eps), mean + begin, rstd + begin);
      });
    });
  }
  result.y = result.y.to(x.dtype());
  return result;
}

Tensor layer_norm_grad_x(const Tensor& x, const Tensor& weight, const Tensor& mean,
                         const Tensor& rstd, const Tensor& grad, const Shape& normalized) {
  const std::int64_t rows = check_normalized(x, normalized), n = numel(normalized);
  const Tensor gx = Tensor::empty(x.shape(), x.is_cuda() ? x.dtype() : mean.dtype(), x.device());
  if (!x.is_meta() && x.numel() > 0) {
    const Tensor in = widened(x).contiguous(), g = widened(grad).contiguous();
    const Tensor w = weight.defined() ? widened(weight).contiguous() : weight;
    if (SG_CUDA && x.is_cuda()) {
      cuda::layer_norm_grad(n, in, w, g, mean, rstd, gx);
      return gx;
    }
    visit_wide("layer_norm", mean.dtype(), [&](auto type) {
      using T = typename decltype(type)::type;
      const T *from = in.data<T>(), *pg = g.data<T>(), *pw = data_or_null<T>(w);
      const T *m = mean.data<T>(), *s = rstd.data<T>();
      T* to = gx.data<T>();
      parallel_for(rows, kernels::row_grain(n), [&](std::int64_t begin, std::int64_t end) {
        loops_of<T>(row_kernels())
            .layer_norm_grad(from + begin * n, pw, pg + begin * n, to + begin * n, end - begin, n,
                             m + begin, s + begin);
      });
    });
  }
  return gx.to(x.dtype());
}

void layer_norm_grad_affine(const Tensor& x, const Tensor& mean, const Tensor& rstd,
                            const Tensor& grad, const Shape& normalized, const Tensor& grad_weight,
                            const Tensor& grad_bias) {
  if (x.is_meta()) return;
  const std::int64_t rows = check_normalized(x, normalized), n = numel(normalized);
  const Tensor in = widened(x).contiguous(), g = widened(grad).contiguous();
  if (SG_CUDA && x.is_cuda())
    return cuda::layer_norm_grad_affine(n, in, g, mean, rstd, grad_weight, grad_bias);
  // Pieces of a fixed number of rows, added in order: the thread count changes no bit.
  constexpr std::int64_t kRows = 256;
  const std::int64_t pieces = std::max<std::int64_t>((rows + kRows - 1) / kRows, 1);
  std::vector<double> sums(static_cast<std::size_t>(pieces * 2 * n), 0.0);
  visit_wide("layer_norm", mean.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const T *px = in.data<T>(), *pg = g.data<T>(), *m = mean.data<T>(), *s = rstd.data<T>();
    parallel_for(pieces, 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t piece = first; piece < last; ++piece) {
        const std::int64_t begin = piece * kRows, end = std::min(rows, begin + kRows);
        double* gw = sums.data() + piece * 2 * n;
        loops_of<T>(row_kernels())
            .layer_norm_affine(px + begin * n, pg + begin * n, end - begin, n, m + begin, s + begin,
                               grad_weight.defined() ? gw : nullptr,
                               grad_bias.defined() ? gw + n : nullptr);
      }
    });
    for (std::int64_t piece = 1; piece < pieces; ++piece)
      for (std::int64_t j = 0; j < 2 * n; ++j)
        sums[static_cast<std::size_t>(j)] += sums[static_cast<std::size_t>(piece * 2 * n + j)];
    const auto write = [&](const Tensor& out, const double* from) {
      if (!out.defined()) return;
      visit_floating("layer_norm", out.dtype(), [&](auto out_type) {
        using R = typename decltype(out_type)::type;
        R* to = out.data<R>();
        for (std::int64_t j = 0; j < n; ++j)
          to[j] = static_cast<R>(static_cast<compute_t<R>>(from[j]));
      });
    };
    write(grad_weight, sums.data());
    write(grad_bias, sums.data() + n);
  });
}

Tensor embedding(const Tensor& indices, const Tensor& weight) {
  SG_CHECK(indices.dtype() == DType::i64, "[embedding] indices must be i64, got {}",
           describe(indices));
  SG_CHECK(weight.dim_count() == 2, "[embedding] the weight must be [rows, dim], got {}",
           weight.shape());
  const std::int64_t rows = weight.shape()[0], dim = weight.shape()[1];
  Shape shape = indices.shape();
  shape.push_back(dim);
  const Tensor out = Tensor::empty(shape, weight.dtype(), weight.device());
  if (weight.is_meta()) return out;
  const Tensor index = indices.contiguous(), table = weight.contiguous();
  SG_CHECK(indices.device() == weight.device(), "[embedding] indices are on {}, the weight on {}",
           name_of(indices.device()), name_of(weight.device()));
  if (SG_CUDA && weight.is_cuda()) {
    cuda::embedding(index, table, out);
    return out;
  }
  const std::int64_t* at = index.data<std::int64_t>();
  for (std::int64_t i = 0; i < index.numel(); ++i)
    SG_CHECK(at[i] >= 0 && at[i] < rows, "[embedding] index {} at position {} is outside [0, {})",
             at[i], i, rows);
  const std::size_t bytes = static_cast<std::size_t>(dim) * size_of(weight.dtype());
  if (bytes == 0) return out;
  const char* from = static_cast<const char*>(table.raw_data());
  char* to = static_cast<char*>(out.raw_data());
  parallel_for(index.numel(), std::max<std::int64_t>((1 << 14) / dim, 1),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t i = begin; i < end; ++i)
                   std::memcpy(to + static_cast<std::size_t>(i) * bytes,
                               from + static_cast<std::size_t>(at[i]) * bytes, bytes);
               });
  return out;
}

void embedding_grad(const Tensor& indices, const Tensor& grad, std::int64_t padding_index,
                    const Tensor& grad_weight) {
  if (grad.is_meta()) return;
  if (SG_CUDA && grad.is_cuda())
    return cuda::embedding_grad(indices.contiguous(), grad.to(grad_weight.dtype()).contiguous(),
                                padding_index, grad_weight);
  if (is_half(grad_weight.dtype())) {
    const Tensor wide = Tensor::empty(grad_weight.shape(), DType::f32, grad_weight.device());
    embedding_grad(indices, grad.to(DType::f32), padding_index, wide);
    grad_weight.copy_from(wide);
    return;
  }
  const std::int64_t rows = grad_weight.shape()[0], dim = grad_weight.shape()[1];
  const Tensor index = indices.contiguous(), g = grad.contiguous();
  const std::int64_t* at = index.data<std::int64_t>();
  const std::int64_t count = index.numel();
  visit_wide("embedding", grad_weight.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const T* from = g.data<T>();
    T* to = grad_weight.data<T>();
    // Each thread owns a range of rows and adds in the order of the indices.
    parallel_for(rows, std::max<std::int64_t>((1 << 15) / std::max<std::int64_t>(dim, 1), 1),
                 [&](std::int64_t begin, std::int64_t end) {
                   std::fill(to + begin * dim, to + end * dim, T(0));
                   for (std::int64_t i = 0; i < count; ++i) {
                     if (at[i] < begin || at[i] >= end || at[i] == padding_index) continue;
                     T* row = to + at[i] * dim;
                     for (std::int64_t j = 0; j < dim; ++j) row[j] += from[i * dim + j];
                   }
                 });
  });
}

}  // namespace sg::ops
