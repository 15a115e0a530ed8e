#include <algorithm>

#include "core/cuda/ops.h"
#include "core/kernels/blocks.h"
#include "core/kernels/row_kernels.h"
#include "core/ops.h"
#include "core/parallel.h"

namespace sg::ops {
namespace {

using kernels::CrossEntropyRows;
using kernels::loops_of;
using kernels::row_kernels;

// Classes last.
Dims classes_last(int rank) {
  Dims order{0};
  for (int i = 2; i < rank; ++i) order.push_back(i);
  order.push_back(1);
  return order;
}

Tensor rows_of(const Tensor& x) {
  const Tensor moved = x.dim_count() > 2 ? x.permute(classes_last(x.dim_count())) : x;
  // The GPU reads 16-bit values as such.
  return (is_half(moved.dtype()) && !x.is_cuda() ? moved.to(DType::f32) : moved).contiguous();
}

// What both directions agree on.
struct Problem {
  bool soft = false;
  std::int64_t classes = 0, rows = 0;
  Shape loss_shape;  // unreduced
  DType wide;
};

Problem check_problem(const Tensor& logits, const Tensor& targets, double label_smoothing) {
  Problem p;
  SG_CHECK(is_floating(logits.dtype()), "[cross_entropy] logits must be floating, got {}",
           describe(logits));
  SG_CHECK(logits.dim_count() >= 1,
           "[cross_entropy] logits need a dimension of classes, got shape {}", logits.shape());
  SG_CHECK(label_smoothing >= 0 && label_smoothing <= 1,
           "[cross_entropy] label smoothing must lie in [0, 1], got {}", label_smoothing);
  const Shape& s = logits.shape();
  const int class_dim = s.size() == 1 ? 0 : 1;
  p.classes = s[class_dim];
  SG_CHECK(p.classes > 0, "[cross_entropy] no classes: logits {}", s);
  for (int i = 0; i < s.size(); ++i)
    if (i != class_dim) p.loss_shape.push_back(s[i]);
  p.rows = numel(p.loss_shape);
  p.wide = logits.dtype() == DType::f64 ? DType::f64 : DType::f32;
  p.soft = is_floating(targets.dtype());
  SG_CHECK(targets.device() == logits.device(), "[cross_entropy] logits are on {}, targets on {}",
           name_of(logits.device()), name_of(targets.device()));
  if (p.soft) {
    SG_CHECK(targets.shape() == s && targets.dtype() == logits.dtype(),
             "[cross_entropy] class probabilities {} must be as the logits {}", describe(targets),
             describe(logits));
  } else {
    SG_CHECK(targets.dtype() == DType::i64,
             "[cross_entropy] targets must be i64 or class probabilities, got {}",
             describe(targets));
    SG_CHECK(targets.shape() == p.loss_shape,
             "[cross_entropy] targets {} do not fit logits {}: expected {}", targets.shape(), s,
             p.loss_shape);
  }
  return p;
}

// Rows that count: all of them for class probabilities.
std::int64_t count_targets(const Problem& p, const Tensor& targets, std::int64_t ignore_index) {
  if (p.soft) return p.rows;
  const std::int64_t* t = targets.data<std::int64_t>();
  return p.rows - std::count(t, t + p.rows, ignore_index);
}

}  // namespace

CrossEntropy cross_entropy(const Tensor& logits, const Tensor& targets,
                           const CrossEntropyOptions& options) {
  const Problem p = check_problem(logits, targets, options.label_smoothing);
  const Device device = logits.device();
  const bool reduced = options.reduction != Reduction::none;
  CrossEntropy result{Tensor::empty(reduced ? Shape{} : p.loss_shape, logits.dtype(), device),
                      Tensor::empty({p.rows, 2}, p.wide, device)};
  if (logits.is_meta()) return result;
  const Tensor x = rows_of(logits), t = p.soft ? rows_of(targets) : targets.contiguous();
  if (!p.soft && !t.is_cuda()) {
    const std::int64_t* at = t.data<std::int64_t>();
    for (std::int64_t i = 0; i < p.rows; ++i)
      SG_CHECK((at[i] >= 0 && at[i] < p.classes) || at[i] == options.ignore_index,
               "[cross_entropy] target {} at index {} is outside [0, {})", at[i], i, p.classes);
  }
  const Tensor each = !reduced && logits.dtype() == p.wide
                          ? result.loss
                          : Tensor::empty(p.loss_shape, p.wide, device);
  if (SG_CUDA && device.is_cuda()) {
    const cuda::LossRows rows{
        x, t, result.stats, p.classes, options.ignore_index, options.label_smoothing};
    cuda::cross_entropy(rows, each);
    if (reduced)
      cuda::loss_total(rows, each, options.reduction == Reduction::mean, result.loss);
    else if (each.storage() != result.loss.storage())
      result.loss.copy_from(each);
    return result;
  }
  visit_wide(p.wide, [&](auto type) {
    using T = typename decltype(type)::type;
    const CrossEntropyRows<T> rows{x.data<T>(),
                                   p.soft ? nullptr : t.data<std::int64_t>(),
                                   p.soft ? t.data<T>() : nullptr,
                                   result.stats.data<T>(),
                                   p.classes,
                                   options.ignore_index,
                                   static_cast<T>(options.label_smoothing)};
    T* loss = each.data<T>();
    parallel_for(p.rows, kernels::row_grain(p.classes), [&](std::int64_t begin, std::int64_t end) {
      loops_of<T>(row_kernels()).cross_entropy(rows, begin, end, loss);
    });
    if (!reduced) return;
    double total = 0;
    for (std::int64_t r = 0; r < p.rows; ++r) total += static_cast<double>(loss[r]);
    if (options.reduction == Reduction::mean)
      total /= static_cast<double>(count_targets(p, t, options.ignore_index));
    result.loss.fill(total);
  });
  if (!reduced && each.storage() != result.loss.storage()) result.loss.copy_from(each);
  return result;
}

Tensor cross_entropy_grad(const Tensor& logits, const Tensor& stats, const Tensor& targets,
                          const CrossEntropyOptions& options, const Tensor& grad) {
  const Problem p = check_problem(logits, targets, options.label_smoothing);
  const int rank = logits.dim_count();
  Shape moved = p.loss_shape;
  moved.push_back(p.classes);
  const Tensor out =
      Tensor::empty(moved, logits.is_cuda() ? logits.dtype() : p.wide, logits.device());
  if (SG_CUDA && logits.is_cuda()) {
    cuda::cross_entropy_grad({rows_of(logits), p.soft ? rows_of(targets) : targets.contiguous(),
                              stats, p.classes, options.ignore_index, options.label_smoothing},
                             grad.to(p.wide).contiguous(), options.reduction == Reduction::mean,
                             out);
  } else if (!logits.is_meta()) {
    const Tensor x = rows_of(logits), t = p.soft ? rows_of(targets) : targets.contiguous();
    const Tensor wide_grad = grad.to(p.wide).contiguous();
    visit_wide(p.wide, [&](auto type) {
      using T = typename decltype(type)::type;
      const CrossEntropyRows<T> rows{x.data<T>(),
                                     p.soft ? nullptr : t.data<std::int64_t>(),
                                     p.soft ? t.data<T>() : nullptr,
                                     stats.data<T>(),
                                     p.classes,
                                     options.ignore_index,
                                     static_cast<T>(options.label_smoothing)};
      const bool each = options.reduction == Reduction::none;
      T one = each ? T(0) : wide_grad.data<T>()[0];
      if (options.reduction == Reduction::mean)
        one = static_cast<T>(static_cast<double>(one) /
                             static_cast<double>(count_targets(p, t, options.ignore_index)));
      const T* scale = each ? wide_grad.data<T>() : &one;
      T* to = out.data<T>();
      parallel_for(p.rows, kernels::row_grain(p.classes),
                   [&](std::int64_t begin, std::int64_t end) {
                     loops_of<T>(row_kernels())
                         .cross_entropy_grad(rows, begin, end, scale, each ? 1 : 0, to);
                   });
    });
  }
  const Tensor cast = out.to(logits.dtype());
  if (rank <= 2) return cast;
  Dims back{0, rank - 1};
  for (int i = 1; i < rank - 1; ++i) back.push_back(i);
  return cast.permute(back);
}

}  // namespace sg::ops
