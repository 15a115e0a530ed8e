// Matrix products: from tensors to strided batches for gemm().
#include <algorithm>

#include "core/cuda/blas.h"
#include "core/cuda/context.h"
#include "core/cuda/kernels_matmul.h"
#include "core/cuda/ops.h"

namespace sg::cuda {
namespace {

// The last two dimensions. Strides of sides of size 1 mean nothing, and may be less than a line.
Matrix matrix_of(const Tensor& t) {
  const int d = t.dim_count();
  const std::int64_t rows = t.shape()[d - 2], columns = t.shape()[d - 1];
  const std::int64_t rs = t.strides()[d - 2], cs = t.strides()[d - 1];
  Matrix x{.data = t.raw_data()};
  x.by_columns = columns == 1 ? rs == 1 || rows == 1 : cs != 1;
  if (x.by_columns)
    x.ld = columns == 1 ? rows : cs;
  else
    x.ld = rows == 1 ? columns : rs;
  return x;
}

// A dimension of batches, in elements.
struct BatchDim {
  std::int64_t size, a, b, out;
};

}  // namespace

void matmul(const char* op, const Tensor& out, const Tensor& a, const Tensor& b, const Tensor& bias,
            bool relu) {
  const int d = out.dim_count();
  const std::int64_t m = out.shape()[d - 2], n = out.shape()[d - 1], k = a.shape()[d - 1];
  if (out.numel() == 0) return;
  if (k == 0) {
    out.fill(0);
    if (bias.defined() || relu)
      bias_relu(on(op, out.device()), out.dtype(), m, n, n, out.raw_data(),
                bias.defined() ? bias.raw_data() : nullptr, relu);
    return;
  }
  // Neighbouring dimensions that compose in all three are one.
  BatchDim dims[Dims::kCapacity];
  int count = 0;
  for (int i = 0; i < d - 2; ++i) {
    if (out.shape()[i] == 1) continue;
    const BatchDim next{out.shape()[i], a.strides()[i], b.strides()[i], out.strides()[i]};
    BatchDim& last = dims[std::max(count - 1, 0)];
    if (count > 0 && last.a == next.a * next.size && last.b == next.b * next.size)
      last = {last.size * next.size, next.a, next.b, next.out};
    else
      dims[count++] = next;
  }
  // The longest is the batch of a call; a loop goes over the others.
  BatchDim inner{1, 0, 0, 0};
  if (count > 0) {
    const auto longest = std::max_element(
        dims, dims + count, [](const BatchDim& x, const BatchDim& y) { return x.size < y.size; });
    inner = *longest;
    std::copy(longest + 1, dims + count, longest);
    --count;
  }
  Gemm g{.dtype = out.dtype(), .out_dtype = out.dtype(), .m = m, .n = n, .k = k};
  g.batches = inner.size;
  g.a = matrix_of(a);
  g.b = matrix_of(b);
  g.a.stride = inner.a;
  g.b.stride = inner.b;
  g.out_ld = n;
  g.out_stride = inner.out;
  g.bias = bias.defined() ? bias.raw_data() : nullptr;
  g.relu = relu;
  const auto size = static_cast<std::int64_t>(size_of(out.dtype()));
  const auto shifted = [&](const void* data, std::int64_t elements) {
    return static_cast<const char*>(data) + elements * size;
  };
  std::int64_t calls = 1;
  for (int i = 0; i < count; ++i) calls *= dims[i].size;
  for (std::int64_t call = 0; call < calls; ++call) {
    std::int64_t rest = call, of_a = 0, of_b = 0, of_out = 0;
    for (int i = count - 1; i >= 0; --i) {
      const std::int64_t index = rest % dims[i].size;
      rest /= dims[i].size;
      of_a += index * dims[i].a;
      of_b += index * dims[i].b;
      of_out += index * dims[i].out;
    }
    Gemm part = g;
    part.a.data = shifted(g.a.data, of_a);
    part.b.data = shifted(g.b.data, of_b);
    part.out = static_cast<char*>(out.raw_data()) + of_out * size;
    gemm(op, out.device(), part);
  }
}

}  // namespace sg::cuda
