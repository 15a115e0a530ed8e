// Reductions over any set of dimensions of any layout. Dimensions are sorted by stride and split
// into kept and reduced ones; then the innermost is either reduced (rows are folded) or kept (rows
// are folded onto each other). Long reductions are cut into pieces of a fixed size, whose results
// are folded in order: the thread count changes no bit.
#include <algorithm>
#include <cmath>
#include <vector>

#include "core/cuda/ops.h"
#include "core/kernels/reduce.h"
#include "core/kernels/reduce_plan.h"
#include "core/ops.h"
#include "core/parallel.h"

namespace sg::ops {
namespace {

using kernels::Fold;
using kernels::loops_of;
using kernels::reduce_kernels;
using Loops = kernels::ReduceDims;
using Plan = kernels::ReducePlan;
static_assert(Loops::kCapacity >= Dims::kCapacity);

constexpr std::int64_t kPiece = 1 << 15;  // elements that one piece of a reduction folds
constexpr std::int64_t kColumns = 512;    // columns folded at once

double identity(Fold fold) {
  return fold == Fold::sum ? 0.0 : fold == Fold::max ? -HUGE_VAL : HUGE_VAL;
}

double combine(Fold fold, double a, double b) {
  if (fold == Fold::sum) return a + b;
  if (a != a) return a;
  if (fold == Fold::max) return a > b ? a : b;
  return a < b ? a : b;
}

// The CPU's loops need a dimension of stride 1 (or a single element).
Plan make_plan(const Tensor& x, const bool* is_reduced, const Strides& out_strides) {
  int order[Dims::kCapacity], used = 0;
  for (int i = 0; i < x.dim_count(); ++i)
    if (x.shape()[i] != 1) order[used++] = i;
  std::stable_sort(order, order + used,
                   [&](int a, int b) { return x.strides()[a] > x.strides()[b]; });
  Plan plan;
  for (int k = 0; k < used; ++k) {
    const int i = order[k];
    if (is_reduced[i])
      plan.reduced.append(x.shape()[i], x.strides()[i], 0);
    else
      plan.kept.append(x.shape()[i], x.strides()[i], out_strides[i]);
  }
  if (used > 0) plan.inner_reduced = is_reduced[order[used - 1]];
  return plan;
}

// Each output is the fold of rows of `row` values; pieces cut across rows, or within one if they
// are long.
template <class T>
void reduce_rows(const Plan& plan, Fold fold, const T* x, T* out, double divisor) {
  const auto loop = loops_of<T>(reduce_kernels()).row[static_cast<int>(fold)];
  Loops outer = plan.reduced;
  const std::int64_t row = outer.count > 0 ? outer.size[--outer.count] : 1;
  const std::int64_t rows = outer.total(), outputs = plan.kept.total();
  const std::int64_t rows_a_piece = std::max<std::int64_t>(kPiece / row, 1);
  const std::int64_t cuts = row > kPiece ? (row + kPiece - 1) / kPiece : 1;  // of one row
  const std::int64_t pieces = (rows + rows_a_piece - 1) / rows_a_piece * cuts;
  std::vector<double> partial(static_cast<std::size_t>(pieces > 1 ? outputs * pieces : 0));
  const auto write = [&](std::int64_t output, double value) {
    std::int64_t f, t;
    plan.kept.locate(output, f, t);
    out[t] = static_cast<T>(value / divisor);
  };
  const std::int64_t cost = std::max<std::int64_t>(rows * row / pieces, 1);
  parallel_for(outputs * pieces, std::max<std::int64_t>(kPiece / cost, 1),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t unit = begin; unit < end; ++unit) {
                   const std::int64_t output = unit / pieces, piece = unit % pieces;
                   std::int64_t base, t;
                   plan.kept.locate(output, base, t);
                   double value = identity(fold);
                   if (cuts > 1) {
                     std::int64_t f;
                     outer.locate(piece / cuts, f, t);
                     const std::int64_t start = piece % cuts * kPiece;
                     value = loop(x + base + f + start, std::min(kPiece, row - start), value);
                   } else {
                     const std::int64_t last = std::min(rows, (piece + 1) * rows_a_piece);
                     for (std::int64_t r = piece * rows_a_piece; r < last; ++r) {
                       std::int64_t f;
                       outer.locate(r, f, t);
                       value = loop(x + base + f, row, value);
                     }
                   }
                   if (pieces > 1)
                     partial[static_cast<std::size_t>(unit)] = value;
                   else
                     write(output, value);
                 }
               });
  if (pieces == 1) return;
  for (std::int64_t output = 0; output < outputs; ++output) {
    double value = identity(fold);
    for (std::int64_t p = 0; p < pieces; ++p)
      value = combine(fold, value, partial[static_cast<std::size_t>(output * pieces + p)]);
    write(output, value);
  }
}

// The innermost dimension is kept: rows of `width` outputs are folded onto each other.
template <class T>
void reduce_columns(const Plan& plan, Fold fold, const T* x, T* out, double divisor) {
  const auto loop = loops_of<T>(reduce_kernels()).rows[static_cast<int>(fold)];
  Loops outer = plan.kept;
  --outer.count;
  const std::int64_t width = outer.size[outer.count], out_stride = outer.to[outer.count];
  const Loops& reduced = plan.reduced;
  std::int64_t rows = reduced.total();
  // Narrow rows that follow each other are folded several at a time, as one wider row.
  std::int64_t group = 1;
  const bool plain = reduced.count <= 1;
  const std::int64_t stride = reduced.count == 1 ? reduced.from[0] : 0;
  if (plain && width < 32 && stride == width) group = std::min<std::int64_t>(64 / width, rows);
  const std::int64_t wide = width * group, wide_rows = rows / group, rest = rows % group;
  const std::int64_t rows_a_piece = std::max<std::int64_t>(kPiece / wide, 64);
  const std::int64_t pieces =
      std::max<std::int64_t>((wide_rows + rows_a_piece - 1) / rows_a_piece, 1);
  const std::int64_t blocks = (wide + kColumns - 1) / kColumns;
  const std::int64_t outers = outer.total();
  std::vector<double> partial(static_cast<std::size_t>(outers * pieces * wide), identity(fold));
  const std::int64_t cost = std::min(rows_a_piece, wide_rows + 1) * std::min(wide, kColumns);
  parallel_for(
      outers * pieces * blocks, std::max<std::int64_t>(kPiece / cost, 1),
      [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t unit = begin; unit < end; ++unit) {
          const std::int64_t block = unit % blocks, piece = unit / blocks % pieces,
                             o = unit / blocks / pieces;
          std::int64_t base, t;
          outer.locate(o, base, t);
          const std::int64_t column = block * kColumns, n = std::min(kColumns, wide - column);
          double* sums = partial.data() + (o * pieces + piece) * wide + column;
          const std::int64_t first = piece * rows_a_piece,
                             last = std::min(wide_rows, first + rows_a_piece);
          if (plain) {
            loop(x + base + first * group * stride + column, group * stride, last - first, n, sums);
            continue;
          }
          for (std::int64_t r = first; r < last;) {
            std::int64_t f;
            reduced.locate(r, f, t);
            // Rows up to the end of the innermost reduced dimension have one stride.
            const int inner = reduced.count - 1;
            const std::int64_t run =
                std::min(last - r, reduced.size[inner] - r % reduced.size[inner]);
            loop(x + base + f + column, reduced.from[inner], run, n, sums);
            r += run;
          }
        }
      });
  for (std::int64_t o = 0; o < outers; ++o) {
    std::int64_t base, t;
    outer.locate(o, base, t);
    double* sums = partial.data() + o * pieces * wide;
    for (std::int64_t p = 1; p < pieces; ++p)
      for (std::int64_t j = 0; j < wide; ++j) sums[j] = combine(fold, sums[j], sums[p * wide + j]);
    for (std::int64_t g = 1; g < group; ++g)
      for (std::int64_t j = 0; j < width; ++j)
        sums[j] = combine(fold, sums[j], sums[g * width + j]);
    for (std::int64_t r = rows - rest; r < rows; ++r)
      for (std::int64_t j = 0; j < width; ++j)
        sums[j] = combine(fold, sums[j], static_cast<double>(x[base + r * stride + j]));
    for (std::int64_t j = 0; j < width; ++j)
      out[t + j * out_stride] = static_cast<T>(sums[j] / divisor);
  }
}

// `out_strides` are those of the result for x's dimensions (0 for reduced ones).
template <class T>
void reduce_floating(const Tensor& x, const bool* is_reduced, Fold fold, double divisor,
                     const Tensor& out, const Strides& out_strides) {
  const Plan plan = make_plan(x, is_reduced, out_strides);
  if (plan.inner_reduced || plan.kept.count == 0)
    reduce_rows(plan, fold, x.data<T>(), out.data<T>(), divisor);
  else
    reduce_columns(plan, fold, x.data<T>(), out.data<T>(), divisor);
}

bool has_unit_stride(const Tensor& x) {
  std::int64_t smallest = 1;
  bool found = x.numel() <= 1;
  for (int i = 0; i < x.dim_count(); ++i) {
    if (x.shape()[i] == 1) continue;
    smallest = std::min(smallest, x.strides()[i]);
    found = found || x.strides()[i] == 1;
  }
  return found && smallest == 1;
}

// Kept dimensions first, reduced ones last, contiguous: the plain order for what needs no speed.
Tensor rows_last(const Tensor& x, const bool* is_reduced) {
  Dims order;
  for (int i = 0; i < x.dim_count(); ++i)
    if (!is_reduced[i]) order.push_back(i);
  for (int i = 0; i < x.dim_count(); ++i)
    if (is_reduced[i]) order.push_back(i);
  return x.permute(order).contiguous();
}

template <class T, class R>
void reduce_integers(const Tensor& x, const bool* is_reduced, Fold fold, const Tensor& out) {
  const std::int64_t outputs = out.numel(), n = x.numel() / std::max<std::int64_t>(outputs, 1);
  const Tensor rows = rows_last(x, is_reduced);
  const T* in = rows.data<T>();
  R* to = out.data<R>();
  for (std::int64_t o = 0; o < outputs; ++o, in += n) {
    R value = fold == Fold::sum ? R(0) : static_cast<R>(in[0]);
    for (std::int64_t i = 0; i < n; ++i) {
      const R next = static_cast<R>(in[i]);
      value = fold == Fold::sum   ? static_cast<R>(value + next)
              : fold == Fold::max ? std::max(value, next)
                                  : std::min(value, next);
    }
    to[o] = value;
  }
}

void mark_reduced(std::string_view op, int rank, const Dims& dims, bool* is_reduced) {
  std::fill(is_reduced, is_reduced + Dims::kCapacity, dims.empty());
  for (const std::int64_t dim : dims) {
    const int d = normalize_dim(op, dim, rank);
    SG_CHECK(!is_reduced[d], "[{}] dimension {} twice in {}", op, d, dims);
    is_reduced[d] = true;
  }
}

// The strides of a contiguous result for x's dimensions, 0 for reduced ones.
Strides result_strides(const Tensor& x, const bool* is_reduced) {
  Strides strides = Dims::filled(x.dim_count(), 0);
  std::int64_t next = 1;
  for (int i = x.dim_count() - 1; i >= 0; --i) {
    if (is_reduced[i]) continue;
    strides[i] = next;
    next *= x.shape()[i];
  }
  return strides;
}

// On the GPU any layout and dtype is read in place, and `out` may have another floating dtype.
// With `centre` (f64, of out's shape) squares of differences from it are added.
void reduce_on_gpu(const char* op, const Tensor& x, const bool* is_reduced, Fold fold,
                   double divisor, const Tensor& out, const Tensor& centre = {}) {
  if (out.numel() == 0) return;
  if (x.numel() == 0) return out.fill(is_floating(x.dtype()) ? 0.0 / divisor : 0.0);
  if (SG_CUDA)
    cuda::reduce(op, make_plan(x, is_reduced, result_strides(x, is_reduced)), fold, x, centre,
                 divisor, out);
}

// Writes the fold of `x` over the marked dimensions to `out`, which is contiguous.
void reduce_into(const char* op, const Tensor& x, const bool* is_reduced, Fold fold, double divisor,
                 const Tensor& out) {
  if (x.is_meta() || out.numel() == 0) return;
  if (SG_CUDA && x.is_cuda()) return reduce_on_gpu(op, x, is_reduced, fold, divisor, out);
  if (!is_floating(x.dtype())) {
    visit(x.dtype(), [&](auto type) {
      using T = typename decltype(type)::type;
      if constexpr (std::is_integral_v<T>) {
        if (fold == Fold::sum)
          reduce_integers<T, std::int64_t>(x, is_reduced, fold, out);
        else
          reduce_integers<T, T>(x, is_reduced, fold, out);
      }
    });
    return;
  }
  if (x.numel() == 0) {
    SG_CHECK(fold == Fold::sum, "[{}] of no elements: shape {}", op, x.shape());
    out.fill(0.0 / divisor);
    return;
  }
  if (x.dtype() == DType::bf16 || x.dtype() == DType::f16) {
    const Tensor wide = Tensor::empty(out.shape(), DType::f32, out.device());
    reduce_into(op, x.to(DType::f32), is_reduced, fold, divisor, wide);
    out.copy_from(wide);
    return;
  }
  const Tensor source = has_unit_stride(x) ? x : x.contiguous();
  const Strides strides = result_strides(x, is_reduced);
  if (x.dtype() == DType::f64)
    reduce_floating<double>(source, is_reduced, fold, divisor, out, strides);
  else
    reduce_floating<float>(source, is_reduced, fold, divisor, out, strides);
}

Tensor reduce(const char* op, const Tensor& x, const Dims& dims, bool keep_dims, Fold fold,
              bool mean) {
  bool is_reduced[Dims::kCapacity];
  mark_reduced(op, x.dim_count(), dims, is_reduced);
  const Shape shape = reduced_shape(op, x.shape(), dims, keep_dims);
  SG_CHECK(!mean || is_floating(x.dtype()), "[{}] needs a floating dtype, got {}; cast it first",
           op, describe(x));
  const DType dtype = fold == Fold::sum && !is_floating(x.dtype()) ? DType::i64 : x.dtype();
  Tensor out = Tensor::empty(shape, dtype, x.device());
  std::int64_t count = 1;
  for (int i = 0; i < x.dim_count(); ++i)
    if (is_reduced[i]) count *= x.shape()[i];
  SG_CHECK(fold == Fold::sum || count > 0 || out.numel() == 0, "[{}] of no elements: shape {}", op,
           x.shape());
  reduce_into(op, x, is_reduced, fold, mean ? static_cast<double>(count) : 1.0, out);
  return out;
}

Tensor var_on_gpu(const Tensor& x, const Dims& dims, int correction, bool keep_dims) {
  bool is_reduced[Dims::kCapacity];
  mark_reduced("var", x.dim_count(), dims, is_reduced);
  const Tensor out =
      Tensor::empty(reduced_shape("var", x.shape(), dims, keep_dims), x.dtype(), x.device());
  if (out.numel() == 0) return out;
  const Scoped kind(current_rank().kind, Kind::buffers);
  const Tensor means = Tensor::empty(out.shape(), DType::f64, x.device());
  const double count = static_cast<double>(x.numel()) / static_cast<double>(out.numel());
  reduce_on_gpu("var", x, is_reduced, Fold::sum, count, means);
  reduce_on_gpu("var", x, is_reduced, Fold::sum, std::max(count - correction, 0.0), out, means);
  return out;
}

}  // namespace

Shape reduced_shape(std::string_view op, const Shape& shape, const Dims& dims, bool keep_dims) {
  bool is_reduced[Dims::kCapacity];
  mark_reduced(op, shape.size(), dims, is_reduced);
  Shape result;
  for (int i = 0; i < shape.size(); ++i) {
    if (!is_reduced[i])
      result.push_back(shape[i]);
    else if (keep_dims)
      result.push_back(1);
  }
  return result;
}

Tensor sum(const Tensor& x, const Dims& dims, bool keep_dims) {
  return reduce("sum", x, dims, keep_dims, Fold::sum, false);
}
Tensor mean(const Tensor& x, const Dims& dims, bool keep_dims) {
  return reduce("mean", x, dims, keep_dims, Fold::sum, true);
}
Tensor amax(const Tensor& x, const Dims& dims, bool keep_dims) {
  return reduce("amax", x, dims, keep_dims, Fold::max, false);
}
Tensor amin(const Tensor& x, const Dims& dims, bool keep_dims) {
  return reduce("amin", x, dims, keep_dims, Fold::min, false);
}

Tensor var(const Tensor& x, const Dims& dims, int correction, bool keep_dims) {
  if (SG_CUDA && x.is_cuda() && is_floating(x.dtype()))
    return var_on_gpu(x, dims, correction, keep_dims);
  if (x.dtype() == DType::bf16 || x.dtype() == DType::f16)
    return var(x.to(DType::f32), dims, correction, keep_dims).to(x.dtype());
  const Tensor centred = sub(x, mean(x, dims, true));
  const Tensor total = sum(square(centred), dims, keep_dims);
  const double count = static_cast<double>(x.numel()) /
                       static_cast<double>(std::max<std::int64_t>(total.numel(), 1));
  return mul(total, 1.0 / std::max(count - correction, 0.0));
}

Tensor argmax(const Tensor& x, std::int64_t dim, bool keep_dims) {
  const int d = normalize_dim("argmax", dim, x.dim_count());
  const Tensor out =
      Tensor::empty(reduced_shape("argmax", x.shape(), {d}, keep_dims), DType::i64, x.device());
  SG_CHECK(x.shape()[d] > 0 || out.numel() == 0, "[argmax] of no elements: shape {}", x.shape());
  if (x.is_meta() || out.numel() == 0) return out;
  bool is_reduced[Dims::kCapacity] = {};
  is_reduced[d] = true;
  if (SG_CUDA && x.is_cuda()) {
    cuda::argmax(x, d, out);
    return out;
  }
  const Tensor rows = rows_last(x, is_reduced);
  const std::int64_t n = x.shape()[d];
  std::int64_t* to = out.data<std::int64_t>();
  visit(x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    const T* in = rows.data<T>();
    parallel_for(out.numel(), std::max<std::int64_t>(kPiece / n, 1),
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t o = begin; o < end; ++o) {
                     const T* row = in + o * n;
                     std::int64_t best = 0;
                     C top = static_cast<C>(row[0]);
                     for (std::int64_t i = 1; i < n && top == top; ++i) {
                       const C value = static_cast<C>(row[i]);
                       if (value > top || value != value) {
                         best = i;
                         top = value;
                       }
                     }
                     to[o] = best;
                   }
                 });
  });
  return out;
}

void sum_to(const Tensor& x, const Tensor& out) {
  const int added = x.dim_count() - out.dim_count();
  SG_CHECK(broadcast_shapes("sum_to", x.shape(), out.shape()) == x.shape(),
           "[sum_to] {} does not broadcast to {}", out.shape(), x.shape());
  bool is_reduced[Dims::kCapacity] = {};
  for (int i = 0; i < x.dim_count(); ++i) is_reduced[i] = i < added || out.shape()[i - added] == 1;
  if (out.is_contiguous() && is_floating(x.dtype())) {
    reduce_into("sum_to", x, is_reduced, Fold::sum, 1.0, out);
    return;
  }
  Dims dims;
  for (int i = 0; i < x.dim_count(); ++i)
    if (is_reduced[i]) dims.push_back(i);
  out.copy_from(dims.empty() ? x.reshape(out.shape())
                             : sum(x, dims).to(x.dtype()).reshape(out.shape()));
}

Tensor sum_to(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  Tensor out = Tensor::empty(shape, x.dtype(), x.device());
  sum_to(x, out);
  return out;
}

}  // namespace sg::ops
