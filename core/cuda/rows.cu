// Softmax and layer norm on the GPU: the row programs of core/kernels/rows.h, a row to each team.
#include "core/kernels/rows.h"

#include "core/cuda/kernels_rows.h"
#include "core/cuda/map.h"
#include "core/cuda/row.h"

namespace sg::cuda {
namespace {

template <class T, RowOp kOp>
struct RowMap {
  const T *x, *grad;
  T* out;
  std::int64_t n;

  template <class Team>
  SG_HD void operator()(const Team& team, std::int64_t r) const {
    const auto from = row(x, r, n);
    const auto to = out_row(out, r, n);
    if constexpr (kOp == RowOp::softmax)
      sg::rows::softmax_write_once(team, from, to, n);
    else if constexpr (kOp == RowOp::softmax_grad)
      sg::rows::softmax_grad(team, from, row(grad, r, n), to, n);
    else if constexpr (kOp == RowOp::log_softmax)
      sg::rows::log_softmax(team, from, to, n);
    else
      sg::rows::log_softmax_grad(team, from, row(grad, r, n), to, n);
  }
};

template <class T>
struct LayerNorm {
  using C = compute_t<T>;
  const T *x, *weight, *bias;
  T* y;
  C *mean, *rstd;
  C eps;
  std::int64_t n;

  template <class Team>
  SG_HD void operator()(const Team& team, std::int64_t r) const {
    sg::rows::layer_norm(team, row(x, r, n), row(weight), row(bias), out_row(y, r, n), n, eps,
                         mean + r, rstd + r);
  }
};

template <class T>
struct LayerNormGrad {
  using C = compute_t<T>;
  const T *x, *weight, *grad;
  const C *mean, *rstd;
  T* grad_x;
  std::int64_t n;

  template <class Team>
  SG_HD void operator()(const Team& team, std::int64_t r) const {
    sg::rows::layer_norm_grad(team, row(x, r, n), row(weight), row(grad, r, n),
                              out_row(grad_x, r, n), n, mean[r], rstd[r]);
  }
};

// Unit (piece, pack): as ColumnFold in reduce.cu.
template <class T, int kWide>
struct AffineSums {
  using C = compute_t<T>;
  static constexpr int kUnroll = 4;
  const T *x, *grad;
  const C *mean, *rstd;
  double* partial;
  std::int64_t rows, n, pieces;

  SG_HD void operator()(std::int64_t unit) const {
    const std::int64_t packs = n / kWide, piece = unit / packs, column = unit % packs * kWide;
    double weight[kWide] = {}, bias[kWide] = {};
    for (std::int64_t r = piece; r < rows; r += kUnroll * pieces) {
      // A few rows in the compute type, these sums in double.
      C w[kWide] = {}, b[kWide] = {};
      for (int j = 0; j < kUnroll; ++j) {
        const std::int64_t at = r + j * pieces;
        if (at >= rows) break;
        const Values vx = load(x + at * n + column), vg = load(grad + at * n + column);
        const C m = mean[at], s = rstd[at];
        for (int k = 0; k < kWide; ++k) {
          const C g = static_cast<C>(vg.values[k]);
          w[k] += g * ((static_cast<C>(vx.values[k]) - m) * s);
          b[k] += g;
        }
      }
      for (int k = 0; k < kWide; ++k) {
        weight[k] += static_cast<double>(w[k]);
        bias[k] += static_cast<double>(b[k]);
      }
    }
    double* const to = partial + piece * 2 * n + column;
    for (int k = 0; k < kWide; ++k) {
      to[k] = weight[k];
      to[n + k] = bias[k];
    }
  }

 private:
  struct alignas(kWide * sizeof(T)) Values {
    T values[kWide];
  };
  SG_HD static Values load(const T* at) { return *reinterpret_cast<const Values*>(at); }
};

template <class T>
const T* as(const void* data) {
  return static_cast<const T*>(data);
}

}  // namespace

void row_op(const Launch& on, RowOp op, DType dtype, std::int64_t rows, std::int64_t n,
            const void* x, const void* grad, void* out) {
  visit_floating(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto run = [&]<RowOp kOp>() {
      for_rows(on, rows, n, RowMap<T, kOp>{as<T>(x), as<T>(grad), static_cast<T*>(out), n});
    };
    switch (op) {
      case RowOp::softmax:
        return run.template operator()<RowOp::softmax>();
      case RowOp::softmax_grad:
        return run.template operator()<RowOp::softmax_grad>();
      case RowOp::log_softmax:
        return run.template operator()<RowOp::log_softmax>();
      case RowOp::log_softmax_grad:
        return run.template operator()<RowOp::log_softmax_grad>();
    }
  });
}

void layer_norm(const Launch& on, DType dtype, std::int64_t rows, std::int64_t n, const void* x,
                const void* weight, const void* bias, double eps, void* y, void* mean, void* rstd) {
  visit_floating(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    for_rows(on, rows, n,
             LayerNorm<T>{as<T>(x), as<T>(weight), as<T>(bias), static_cast<T*>(y),
                          static_cast<C*>(mean), static_cast<C*>(rstd), static_cast<C>(eps), n});
  });
}

void layer_norm_grad(const Launch& on, DType dtype, std::int64_t rows, std::int64_t n,
                     const void* x, const void* weight, const void* grad, const void* mean,
                     const void* rstd, void* grad_x) {
  visit_floating(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    for_rows(on, rows, n,
             LayerNormGrad<T>{as<T>(x), as<T>(weight), as<T>(grad), as<C>(mean), as<C>(rstd),
                              static_cast<T*>(grad_x), n});
  });
}

void layer_norm_grad_affine(const Launch& on, DType dtype, std::int64_t rows, std::int64_t n,
                            const void* x, const void* grad, const void* mean, const void* rstd,
                            std::int64_t pieces, double* partial) {
  visit_floating(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    const auto run = [&]<int kWide>() {
      for_each(on, pieces * (n / kWide),
               AffineSums<T, kWide>{as<T>(x), as<T>(grad), as<C>(mean), as<C>(rstd), partial, rows,
                                    n, pieces});
    };
    constexpr int kCount = Pack<T>::kCount;
    const auto bits = reinterpret_cast<std::uintptr_t>(x) | reinterpret_cast<std::uintptr_t>(grad);
    if (n % kCount == 0 && bits % 16 == 0)
      run.template operator()<kCount>();
    else
      run.template operator()<1>();
  });
}

}  // namespace sg::cuda
