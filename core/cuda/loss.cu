// Cross entropy on the GPU: the row programs of core/kernels/rows.h, and the sum, or mean, over
// rows.
#include "core/kernels/rows.h"

#include "core/cuda/any_dtype.h"
#include "core/cuda/found.h"
#include "core/cuda/kernels_rows.h"
#include "core/cuda/row.h"

namespace sg::cuda {
namespace {

constexpr std::int64_t kPiece = 1 << 14;  // rows whose losses one team adds

template <class T>
struct Loss {
  using C = compute_t<T>;
  CrossEntropyCall c;
  C* loss;

  template <class Team>
  SG_HD void operator()(const Team& team, std::int64_t r) const {
    const auto x = row(static_cast<const T*>(c.logits), r, c.n);
    const C smoothing = static_cast<C>(c.smoothing);
    sg::rows::LogSumExp<C> lse{};
    C value = 0;
    if (c.soft != nullptr) {
      value = sg::rows::cross_entropy_soft(team, x, row(static_cast<const T*>(c.soft), r, c.n), c.n,
                                           smoothing, &lse);
    } else {
      const std::int64_t target = c.targets[r];
      if (target >= 0 && target < c.n && target != c.ignore_index)
        value = sg::rows::cross_entropy(team, x, c.n, target, smoothing, &lse);
      else if (target != c.ignore_index && team.first())
        report(c.found, kTargetOutside, target, r, c.n);
    }
    if (!team.first()) return;
    loss[r] = value;
    C* const stats = static_cast<C*>(c.stats) + 2 * r;
    stats[0] = lse.top;
    stats[1] = lse.rest;
  }
};

template <class T>
struct LossGrad {
  using C = compute_t<T>;
  CrossEntropyCall c;
  const C* scale;
  std::int64_t scale_stride;
  T* grad;

  template <class Team>
  SG_HD void operator()(const Team& team, std::int64_t r) const {
    const auto x = row(static_cast<const T*>(c.logits), r, c.n);
    const auto to = out_row(grad, r, c.n);
    const C smoothing = static_cast<C>(c.smoothing), s = scale[r * scale_stride];
    const C* const stats = static_cast<const C*>(c.stats) + 2 * r;
    const sg::rows::LogSumExp<C> lse{stats[0], stats[1]};
    if (c.soft != nullptr) {
      sg::rows::cross_entropy_soft_grad(team, x, row(static_cast<const T*>(c.soft), r, c.n), to,
                                        c.n, smoothing, lse, s);
      return;
    }
    const std::int64_t target = c.targets[r];
    if (target >= 0 && target < c.n && target != c.ignore_index)
      sg::rows::cross_entropy_grad(team, x, to, c.n, target, smoothing, lse, s);
    else
      team.each(c.n, [&](std::int64_t i) { to[i] = C(0); });
  }
};

// {sum of losses, rows that count} of each piece. Without losses, the count alone.
template <class C>
struct PieceTotals {
  const C* loss;
  const std::int64_t* targets;  // null: all rows count
  std::int64_t rows, ignore_index;
  double* totals;

  template <class Team>
  SG_HD void operator()(const Team& team, std::int64_t piece) const {
    const std::int64_t start = piece * kPiece, n = rows - start < kPiece ? rows - start : kPiece;
    double sum = 0;
    if (loss != nullptr)
      sum = team.template sum<double>(
          n, [&](std::int64_t i) { return static_cast<double>(loss[start + i]); });
    std::int64_t count = n;
    if (targets != nullptr)
      count = team.template sum<std::int64_t>(
          n, [&](std::int64_t i) { return std::int64_t{targets[start + i] != ignore_index}; });
    if (!team.first()) return;
    totals[2 * piece] = sum;
    totals[2 * piece + 1] = static_cast<double>(count);
  }
};

struct Total {
  const double* totals;
  std::int64_t pieces;
  bool mean;
  DType dtype;
  void* out;
  const void* grad;  // of out's dtype: divided by the count, instead of the sum
  SG_HD double of(const void* data) const {
    return dtype == DType::f64 ? *static_cast<const double*>(data)
                               : static_cast<double>(*static_cast<const float*>(data));
  }

  template <class Team>
  SG_HD void operator()(const Team& team, std::int64_t) const {
    double value = team.template sum<double>(pieces, [&](std::int64_t p) { return totals[2 * p]; });
    const double count =
        team.template sum<double>(pieces, [&](std::int64_t p) { return totals[2 * p + 1]; });
    if (!team.first()) return;
    if (grad != nullptr) value = of(grad);
    if (mean) value /= count;
    put_value(out, dtype, 0, value);
  }
};

void total(const Launch& on, const CrossEntropyCall& c, const void* loss, double* scratch,
           const Total& last) {
  const std::int64_t length = std::min(c.rows, kPiece);
  if (c.dtype == DType::f64)
    for_rows(on, last.pieces, length,
             PieceTotals<double>{static_cast<const double*>(loss), c.targets, c.rows,
                                 c.ignore_index, scratch});
  else
    for_rows(on, last.pieces, length,
             PieceTotals<float>{static_cast<const float*>(loss), c.targets, c.rows, c.ignore_index,
                                scratch});
  for_rows(on, 1, last.pieces, last);
}

}  // namespace

void cross_entropy(const Launch& on, const CrossEntropyCall& c, void* loss) {
  visit_floating(c.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    for_rows(on, c.rows, c.n, Loss<T>{c, static_cast<compute_t<T>*>(loss)});
  });
}

void cross_entropy_grad(const Launch& on, const CrossEntropyCall& c, const void* scale,
                        std::int64_t scale_stride, void* grad_logits) {
  visit_floating(c.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    for_rows(on, c.rows, c.n,
             LossGrad<T>{c, static_cast<const compute_t<T>*>(scale), scale_stride,
                         static_cast<T*>(grad_logits)});
  });
}

std::int64_t loss_pieces(std::int64_t rows) { return (rows + kPiece - 1) / kPiece; }

void loss_total(const Launch& on, const CrossEntropyCall& c, const void* loss, bool mean,
                double* scratch, DType out_dtype, void* out) {
  total(on, c, loss, scratch, Total{scratch, loss_pieces(c.rows), mean, out_dtype, out, nullptr});
}

void loss_scale(const Launch& on, const CrossEntropyCall& c, const void* grad, double* scratch,
                void* scale) {
  total(on, c, nullptr, scratch,
        Total{scratch, loss_pieces(c.rows), true, c.dtype == DType::f64 ? DType::f64 : DType::f32,
              scale, grad});
}

}  // namespace sg::cuda
