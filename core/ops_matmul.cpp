#include <algorithm>

#include "core/cuda/ops.h"
#include "core/kernels/blocks.h"
#include "core/kernels/matmul.h"
#include "core/ops.h"
#include "core/parallel.h"

#if SG_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#endif

namespace sg::ops {
namespace {

using kernels::loops_of;
using kernels::matmul_kernels;
using kernels::MatrixView;

// Memory for the packed panels of `count` threads, allocated by the rank's own thread; small ones
// are on its stack.
class Scratch {
 public:
  Scratch(std::int64_t bytes, std::int64_t count) : bytes_((bytes + 63) / 64 * 64) {
    if (bytes_ * count <= static_cast<std::int64_t>(sizeof(small_))) {
      data_ = small_;
      return;
    }
    Scoped kind(current_rank().kind, Kind::buffers);
    large_ = Tensor::empty({bytes_ * count}, DType::u8, kCpu);
    data_ = static_cast<char*>(large_.raw_data());
  }
  void* part(std::int64_t i) const { return data_ + i * bytes_; }

 private:
  std::int64_t bytes_;
  char* data_;
  Tensor large_;
  alignas(64) char small_[1 << 15];
};

// Products below this many multiplications gain nothing from a second thread.
constexpr std::int64_t kGrain = 1 << 18;

// Ours, in parallel over the longer side.
template <class T>
void multiply_own(std::int64_t m, std::int64_t n, std::int64_t k, MatrixView<T> a, MatrixView<T> b,
                  T* c, std::int64_t ldc) {
  const auto& loops = loops_of<T>(matmul_kernels());
  const bool by_rows = m >= n;
  const std::int64_t unit = by_rows ? loops.block_rows : loops.block_columns;
  const std::int64_t length = by_rows ? m : n, units = (length + unit - 1) / unit;
  const std::int64_t work = std::max<std::int64_t>(unit * k * (by_rows ? n : m), 1);
  const std::int64_t grain = std::max<std::int64_t>(kGrain / work, 1);
  const std::int64_t parts = std::clamp<std::int64_t>(units / grain, 1, current_rank().threads);
  const Scratch scratch(loops.scratch_bytes(m, n, k), parts);
  parallel_for(parts, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t part = first; part < last; ++part) {
      const std::int64_t begin = units * part / parts * unit;
      const std::int64_t end = std::min(units * (part + 1) / parts * unit, length);
      if (begin >= end) continue;
      if (by_rows)
        loops.multiply(end - begin, n, k, {a.data + begin * a.row, a.row, a.column}, b,
                       c + begin * ldc, ldc, scratch.part(part));
      else
        loops.multiply(m, end - begin, k, a, {b.data + begin * b.column, b.row, b.column},
                       c + begin, ldc, scratch.part(part));
    }
  });
}

#if SG_ONEDNN
// to (n x m, rows ld apart) = from (m x n, contiguous), transposed.
void transpose(std::int64_t m, std::int64_t n, const float* from, float* to, std::int64_t ld) {
  constexpr std::int64_t kTile = 16;  // its lines stay in the first cache
  parallel_for((n + kTile - 1) / kTile, 4, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t j = first * kTile; j < std::min(last * kTile, n); j += kTile)
      for (std::int64_t i = 0; i < m; i += kTile) {
        const std::int64_t rows = std::min(kTile, n - j), columns = std::min(kTile, m - i);
        for (std::int64_t r = 0; r < rows; ++r)
          for (std::int64_t c = 0; c < columns; ++c)
            to[(j + r) * ld + i + c] = from[(i + c) * n + j + r];
      }
  });
}

// oneDNN's call costs less than 1 µs: it serves products of every size. It takes the number of
// threads from OpenMP. `one_of_many`: one thread's share of a parallel loop, which allocates
// nothing (a worker's tensors are on no rank's ledger) and starts no threads.
void multiply_onednn(std::int64_t m, std::int64_t n, std::int64_t k, MatrixView<float> a,
                     MatrixView<float> b, float* c, std::int64_t ldc, bool one_of_many) {
  set_library_threads();
  const bool at = a.column != 1, bt = b.column != 1;
  // A large transposed right-hand side, as a layer's weight is, takes oneDNN long to pack. On the
  // left it is read as it lies, and what is transposed instead is small: 1.2x at 128 x 3072 x 512.
  if (!one_of_many && !at && bt && 2 * m <= n && k >= 512) {
    const Scoped kind(current_rank().kind, Kind::buffers);
    const Tensor turned = Tensor::empty({n, m});
    multiply_onednn(n, m, k, {b.data, b.column, 1}, {a.data, 1, a.row}, turned.data<float>(), m,
                    false);
    return transpose(n, m, turned.data<float>(), c, ldc);
  }
  const dnnl_status_t status =
      dnnl_sgemm(at ? 'T' : 'N', bt ? 'T' : 'N', m, n, k, 1.0f, a.data, at ? a.column : a.row,
                 b.data, bt ? b.column : b.row, 0.0f, c, ldc);
  SG_CHECK(status == dnnl_success, "[matmul] oneDNN refused [{}, {}] x [{}, {}]: status {}", m, k,
           k, n, static_cast<int>(status));
}
#endif

// c (m x n, rows ldc apart) = a b. Which kernel serves depends on the sizes alone.
template <class T>
void multiply(std::int64_t m, std::int64_t n, std::int64_t k, MatrixView<T> a, MatrixView<T> b,
              T* c, std::int64_t ldc) {
  if (m == 0 || n == 0) return;
  if (k == 0) {
    for (std::int64_t i = 0; i < m; ++i) std::fill(c + i * ldc, c + i * ldc + n, T(0));
    return;
  }
#if SG_ONEDNN
  if constexpr (std::is_same_v<T, float>) return multiply_onednn(m, n, k, a, b, c, ldc, false);
#endif
  multiply_own<T>(m, n, k, a, b, c, ldc);
}

// The same on one thread of a parallel region.
template <class T>
void multiply_serial(std::int64_t m, std::int64_t n, std::int64_t k, MatrixView<T> a,
                     MatrixView<T> b, T* c, std::int64_t ldc, void* scratch) {
#if SG_ONEDNN
  static_cast<void>(scratch);
  if constexpr (std::is_same_v<T, float>) return multiply_onednn(m, n, k, a, b, c, ldc, true);
#endif
  loops_of<T>(matmul_kernels()).multiply(m, n, k, a, b, c, ldc, scratch);
}

// The last two dimensions of `t` in a form that the kernels read (one stride 1, the other no less
// than that side's size), copied if its strides are otherwise.
Tensor as_matrices(const Tensor& t) {
  const int d = t.dim_count();
  const std::int64_t rows = t.shape()[d - 2], columns = t.shape()[d - 1];
  const std::int64_t rs = t.strides()[d - 2], cs = t.strides()[d - 1];
  const bool by_rows = (cs == 1 || columns == 1) && (rs >= columns || rows == 1);
  const bool by_columns = (rs == 1 || rows == 1) && (cs >= rows || columns == 1);
  return by_rows || by_columns ? t : t.contiguous();
}

template <class T>
MatrixView<T> view_of(const Tensor& t) {
  const int d = t.dim_count();
  const std::int64_t rows = t.shape()[d - 2], columns = t.shape()[d - 1];
  std::int64_t rs = t.strides()[d - 2], cs = t.strides()[d - 1];
  // Strides of sides of size 1 mean nothing: given such that the other side's stride decides.
  if (rows == 1 && columns == 1)
    rs = cs = 1;
  else if (rows == 1)
    rs = cs == 1 ? columns : 1;
  else if (columns == 1)
    cs = rs == 1 ? rows : 1;
  return {t.data<T>(), rs, cs};
}

template <class T>
void multiply_batches(const Tensor& out, const Tensor& a, const Tensor& b) {
  const int d = out.dim_count();
  const std::int64_t m = out.shape()[d - 2], n = out.shape()[d - 1], k = a.shape()[d - 1];
  std::int64_t batches = 1;
  for (int i = 0; i < d - 2; ++i) batches *= out.shape()[i];
  const MatrixView<T> va = view_of<T>(a), vb = view_of<T>(b);
  T* const c = out.data<T>();
  const bool empty = m * n == 0 || k == 0;  // of a factor, too, which may have no address
  const auto at = [&](std::int64_t batch, MatrixView<T>& x, MatrixView<T>& y) {
    x = va;
    y = vb;
    for (int i = d - 3; i >= 0 && !empty; --i) {
      const std::int64_t index = batch % out.shape()[i];
      batch /= out.shape()[i];
      x.data += index * a.strides()[i];
      y.data += index * b.strides()[i];
    }
  };
  // Small products in parallel, large ones each in parallel within itself.
  const bool small = m * n * k < kGrain * current_rank().threads;
  if (batches == 1 || !small || empty) {
    for (std::int64_t i = 0; i < batches; ++i) {
      MatrixView<T> x, y;
      at(i, x, y);
      multiply<T>(m, n, k, x, y, c + i * m * n, n);
    }
    return;
  }
  const auto& loops = loops_of<T>(matmul_kernels());
  const std::int64_t grain = std::max<std::int64_t>(kGrain / (m * n * k), 1);
  const std::int64_t parts = std::clamp<std::int64_t>(batches / grain, 1, current_rank().threads);
  constexpr bool own = !SG_ONEDNN || !std::is_same_v<T, float>;
  const Scratch scratch(own ? loops.scratch_bytes(m, n, k) : 0, parts);
  parallel_for(parts, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t part = first; part < last; ++part) {
      for (std::int64_t i = batches * part / parts; i < batches * (part + 1) / parts; ++i) {
        MatrixView<T> x, y;
        at(i, x, y);
        multiply_serial<T>(m, n, k, x, y, c + i * m * n, n, scratch.part(part));
      }
    }
  });
}

// out (contiguous) = a b; all of the same rank >= 2, batch dimensions expanded.
void multiply_tensors(const Tensor& out, const Tensor& a, const Tensor& b) {
  if (out.is_meta() || out.numel() == 0) return;
  if (SG_CUDA && out.is_cuda()) return cuda::matmul("matmul", out, as_matrices(a), as_matrices(b));
  if (is_half(out.dtype())) {
    const Tensor wide = Tensor::empty(out.shape(), DType::f32, out.device());
    multiply_tensors(wide, a.to(DType::f32), b.to(DType::f32));
    out.copy_from(wide);
    return;
  }
  if (out.dtype() == DType::f64)
    multiply_batches<double>(out, as_matrices(a), as_matrices(b));
  else
    multiply_batches<float>(out, as_matrices(a), as_matrices(b));
}

void check_factors(const Tensor& a, const Tensor& b) {
  check_same_dtype("matmul", a, b);
  SG_CHECK(is_floating(a.dtype()), "[matmul] needs a floating dtype, got {}; cast it first",
           describe(a));
  SG_CHECK(a.dim_count() > 0 && b.dim_count() > 0, "[matmul] needs at least one dimension: {} x {}",
           a.shape(), b.shape());
}

}  // namespace

void matmul_into(const Tensor& out, const Tensor& a, const Tensor& b) {
  check_factors(a, b);
  SG_CHECK(a.dim_count() == 2 && b.dim_count() == 2 && out.dim_count() == 2 &&
               a.shape()[1] == b.shape()[0] && out.shape()[0] == a.shape()[0] &&
               out.shape()[1] == b.shape()[1],
           "[matmul] {} x {} does not give {}", a.shape(), b.shape(), out.shape());
  check_same_dtype("matmul", a, out);
  SG_CHECK(out.is_contiguous(), "[matmul] the result {} must be contiguous", out.shape());
  multiply_tensors(out, a, b);
}

Tensor matmul(const Tensor& a, const Tensor& b) {
  check_factors(a, b);
  if (a.dim_count() == 1 || b.dim_count() == 1) {
    const Tensor y =
        matmul(a.dim_count() == 1 ? a.unsqueeze(0) : a, b.dim_count() == 1 ? b.unsqueeze(1) : b);
    const Tensor rows = b.dim_count() == 1 ? y.squeeze(-1) : y;
    return a.dim_count() == 1 ? rows.squeeze(b.dim_count() == 1 ? -1 : -2) : rows;
  }
  const std::int64_t m = a.size(-2), k = a.size(-1), n = b.size(-1);
  SG_CHECK(k == b.size(-2), "[matmul] inner sizes differ: {} x {}", a.shape(), b.shape());
  // One right-hand side for all batches: one tall product.
  if (a.dim_count() > 2 && b.dim_count() == 2) {
    const Tensor rows = a.view_or_undefined({a.numel() / std::max<std::int64_t>(k, 1), k});
    if (k > 0 && rows.defined()) {
      Shape shape = a.shape();
      shape[shape.size() - 1] = n;
      return matmul(rows, b).reshape(shape);
    }
  }
  const auto batch_of = [](const Shape& s) { return Shape(std::span(s.begin(), s.end() - 2)); };
  const Shape batch = broadcast_shapes("matmul", batch_of(a.shape()), batch_of(b.shape()));
  const auto with = [&](std::int64_t rows, std::int64_t columns) {
    Shape s = batch;
    s.push_back(rows);
    s.push_back(columns);
    return s;
  };
  const Tensor out = Tensor::empty(with(m, n), a.dtype(), a.device());
  // Copies that strides force are made before broadcasting.
  multiply_tensors(out, as_matrices(a).expand(with(m, k)), as_matrices(b).expand(with(k, n)));
  return out;
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, bool relu) {
  check_same_dtype("linear", x, weight);
  SG_CHECK(weight.dim_count() == 2 && x.dim_count() >= 1 && x.size(-1) == weight.shape()[1],
           "[linear] the input {} does not fit the weight {} (out, in)", x.shape(), weight.shape());
  const std::int64_t in = weight.shape()[1], out = weight.shape()[0];
  if (bias.defined()) {
    check_same_dtype("linear", x, bias);
    SG_CHECK(bias.shape() == Shape{out},
             "[linear] the bias {} does not fit the weight {} (out, in)", bias.shape(),
             weight.shape());
  }
  Shape shape = x.shape();
  shape[shape.size() - 1] = out;
  const std::int64_t rows = numel(shape) / std::max<std::int64_t>(out, 1);
  const Tensor y = Tensor::empty({rows, out}, x.dtype(), x.device());
  if (!y.is_meta() && y.numel() > 0) {
    if (SG_CUDA && y.is_cuda()) {
      cuda::matmul("linear", y, as_matrices(x.reshape({rows, in})),
                   as_matrices(weight.transpose(0, 1)), bias.defined() ? bias.contiguous() : bias,
                   relu);
    } else if (is_half(x.dtype())) {
      const Tensor wide = linear(x.to(DType::f32), weight.to(DType::f32),
                                 bias.defined() ? bias.to(DType::f32) : bias, relu);
      y.copy_from(wide.reshape({rows, out}));
    } else {
      matmul_into(y, x.reshape({rows, in}), weight.transpose(0, 1));
      if (bias.defined() || relu) {
        visit_floating("linear", y.dtype(), [&](auto type) {
          using T = compute_t<typename decltype(type)::type>;
          if constexpr (std::is_same_v<T, typename decltype(type)::type>) {
            const Tensor b = bias.defined() ? bias.contiguous() : bias;
            const T* from = b.defined() ? b.data<T>() : nullptr;
            T* to = y.data<T>();
            parallel_for(rows, std::max<std::int64_t>((1 << 15) / out, 1),
                         [&](std::int64_t begin, std::int64_t end) {
                           loops_of<T>(matmul_kernels())
                               .add_bias(to + begin * out, from, end - begin, out, relu);
                         });
          }
        });
      }
    }
  }
  return y.reshape(shape);
}

}  // namespace sg::ops
