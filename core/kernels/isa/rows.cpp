#include "core/kernels/rows.h"

#include "core/kernels/row_kernels.h"

namespace sg::kernels::SG_ISA {
namespace {

// One thread. Sums run in 16 lanes, whatever the instruction set, over blocks of 1024 values that
// are added in double.
struct SerialTeam {
  static constexpr int kLanes = 16;
  static constexpr std::int64_t kBlock = 1024;

  SG_HD bool first() const { return true; }

  template <class F>
  SG_HD void each(std::int64_t n, const F& f) const {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) f(i);
  }

  template <class T, class F>
  SG_HD T sum(std::int64_t n, const F& f) const {
    double total = 0;
    for (std::int64_t start = 0; start < n; start += kBlock) {
      const std::int64_t end = n - start < kBlock ? n : start + kBlock;
      T lane[kLanes] = {};
      std::int64_t i = start;
      for (; i + kLanes <= end; i += kLanes) {
#pragma omp simd
        for (int j = 0; j < kLanes; ++j) lane[j] += f(i + j);
      }
      const int rest = static_cast<int>(end - i);
#pragma omp simd
      for (int j = 0; j < rest; ++j) lane[j] += f(i + j);
      for (int width = kLanes / 2; width > 0; width /= 2)
        for (int j = 0; j < width; ++j) lane[j] += lane[j + width];
      total += static_cast<double>(lane[0]);
    }
    return static_cast<T>(total);
  }

  template <class T, class F>
  SG_HD T max(std::int64_t n, const F& f) const {
    T lane[kLanes];
    for (int j = 0; j < kLanes; ++j) lane[j] = -T(HUGE_VAL);
    std::int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
#pragma omp simd
      for (int j = 0; j < kLanes; ++j) lane[j] = larger(f(i + j), lane[j]);
    }
    const int rest = static_cast<int>(n - i);
#pragma omp simd
    for (int j = 0; j < rest; ++j) lane[j] = larger(f(i + j), lane[j]);
    for (int j = 1; j < kLanes; ++j) lane[0] = larger(lane[j], lane[0]);
    return lane[0];
  }

 private:
  template <class T>
  SG_HD static T larger(T a, T b) {
    return a > b || a != a ? a : b;
  }
};

// Rows of a few classes leave most lanes of a vector empty. They are taken kTile at a time instead,
// one row a lane. A row's bits do not depend on its place: rows of one length always come this way.
constexpr std::int64_t kNarrow = 32;
constexpr int kTile = 16;

template <class T>
struct Tile {
  T x[kNarrow][kTile];
  T top[kTile], rest[kTile];

  // Rows first, ..., first + rows - 1 of n values, missing ones as copies of the first; and their
  // log-sum-exp.
  Tile(const T* from, int rows, std::int64_t n) {
    for (int l = 0; l < kTile; ++l) {
      const T* row = from + (l < rows ? l : 0) * n;
      for (std::int64_t i = 0; i < n; ++i) x[i][l] = row[i];
    }
    T total[kTile];
#pragma omp simd
    for (int l = 0; l < kTile; ++l) top[l] = x[0][l];
    for (std::int64_t i = 1; i < n; ++i) {
#pragma omp simd
      for (int l = 0; l < kTile; ++l)
        top[l] = x[i][l] > top[l] || x[i][l] != x[i][l] ? x[i][l] : top[l];
    }
#pragma omp simd
    for (int l = 0; l < kTile; ++l) total[l] = T(0);
    for (std::int64_t i = 0; i < n; ++i) {
#pragma omp simd
      for (int l = 0; l < kTile; ++l) total[l] += math::exp(x[i][l] - top[l]);
    }
#pragma omp simd
    for (int l = 0; l < kTile; ++l) rest[l] = math::log(total[l]);
  }
};

// Calls f(first row, rows) for tiles of rows [begin, end).
template <class F>
SG_HD void for_tiles(std::int64_t begin, std::int64_t end, const F& f) {
  for (std::int64_t r = begin; r < end; r += kTile)
    f(r, static_cast<int>(end - r < kTile ? end - r : kTile));
}

template <class T>
void softmax(const T* x, T* y, std::int64_t rows, std::int64_t n) {
  for (std::int64_t r = 0; r < rows; ++r) rows::softmax(SerialTeam{}, x + r * n, y + r * n, n);
}

template <class T>
void softmax_grad(const T* y, const T* g, T* gx, std::int64_t rows, std::int64_t n) {
  for (std::int64_t r = 0; r < rows; ++r)
    rows::softmax_grad(SerialTeam{}, y + r * n, g + r * n, gx + r * n, n);
}

template <class T>
void log_softmax(const T* x, T* y, std::int64_t rows, std::int64_t n) {
  if (n <= kNarrow) {
    for_tiles(0, rows, [&](std::int64_t r, int count) {
      const Tile<T> tile(x + r * n, count, n);
      for (int l = 0; l < count; ++l)
        for (std::int64_t i = 0; i < n; ++i)
          y[(r + l) * n + i] = (tile.x[i][l] - tile.top[l]) - tile.rest[l];
    });
    return;
  }
  for (std::int64_t r = 0; r < rows; ++r) rows::log_softmax(SerialTeam{}, x + r * n, y + r * n, n);
}

template <class T>
void log_softmax_grad(const T* y, const T* g, T* gx, std::int64_t rows, std::int64_t n) {
  for (std::int64_t r = 0; r < rows; ++r)
    rows::log_softmax_grad(SerialTeam{}, y + r * n, g + r * n, gx + r * n, n);
}

template <class T>
void layer_norm(const T* x, const T* weight, const T* bias, T* y, std::int64_t rows, std::int64_t n,
                T eps, T* mean, T* rstd) {
  for (std::int64_t r = 0; r < rows; ++r)
    rows::layer_norm(SerialTeam{}, x + r * n, weight, bias, y + r * n, n, eps, mean + r, rstd + r);
}

template <class T>
void layer_norm_grad(const T* x, const T* weight, const T* g, T* gx, std::int64_t rows,
                     std::int64_t n, const T* mean, const T* rstd) {
  for (std::int64_t r = 0; r < rows; ++r)
    rows::layer_norm_grad(SerialTeam{}, x + r * n, weight, g + r * n, gx + r * n, n, mean[r],
                          rstd[r]);
}

template <class T>
void layer_norm_affine(const T* x, const T* g, std::int64_t rows, std::int64_t n, const T* mean,
                       const T* rstd, double* gw, double* gb) {
  for (std::int64_t r = 0; r < rows; ++r, x += n, g += n) {
    if (gw != nullptr) {
      const T m = mean[r], s = rstd[r];
#pragma omp simd
      for (std::int64_t j = 0; j < n; ++j) gw[j] += static_cast<double>(g[j] * ((x[j] - m) * s));
    }
    if (gb != nullptr) {
#pragma omp simd
      for (std::int64_t j = 0; j < n; ++j) gb[j] += static_cast<double>(g[j]);
    }
  }
}

template <class T>
void cross_entropy(const CrossEntropyRows<T>& c, std::int64_t begin, std::int64_t end, T* loss) {
  if (c.n <= kNarrow && c.soft == nullptr && c.smoothing == T(0)) {
    for_tiles(begin, end, [&](std::int64_t r, int count) {
      const Tile<T> tile(c.logits + r * c.n, count, c.n);
      for (int l = 0; l < count; ++l) {
        const std::int64_t target = c.targets[r + l];
        loss[r + l] = target == c.ignore_index
                          ? T(0)
                          : (tile.top[l] - c.logits[(r + l) * c.n + target]) + tile.rest[l];
        c.stats[2 * (r + l)] = tile.top[l];
        c.stats[2 * (r + l) + 1] = tile.rest[l];
      }
    });
    return;
  }
  for (std::int64_t r = begin; r < end; ++r) {
    const T* x = c.logits + r * c.n;
    rows::LogSumExp<T> lse{};
    if (c.soft != nullptr)
      loss[r] = rows::cross_entropy_soft(SerialTeam{}, x, c.soft + r * c.n, c.n, c.smoothing, &lse);
    else if (c.targets[r] == c.ignore_index)
      loss[r] = T(0);
    else
      loss[r] = rows::cross_entropy(SerialTeam{}, x, c.n, c.targets[r], c.smoothing, &lse);
    c.stats[2 * r] = lse.top;
    c.stats[2 * r + 1] = lse.rest;
  }
}

template <class T>
void cross_entropy_grad(const CrossEntropyRows<T>& c, std::int64_t begin, std::int64_t end,
                        const T* scale, std::int64_t scale_stride, T* gx) {
  for (std::int64_t r = begin; r < end; ++r) {
    const T* x = c.logits + r * c.n;
    T* to = gx + r * c.n;
    const rows::LogSumExp<T> lse{c.stats[2 * r], c.stats[2 * r + 1]};
    const T s = scale[r * scale_stride];
    if (c.soft != nullptr)
      rows::cross_entropy_soft_grad(SerialTeam{}, x, c.soft + r * c.n, to, c.n, c.smoothing, lse,
                                    s);
    else if (c.targets[r] == c.ignore_index)
      for (std::int64_t i = 0; i < c.n; ++i) to[i] = T(0);
    else
      rows::cross_entropy_grad(SerialTeam{}, x, to, c.n, c.targets[r], c.smoothing, lse, s);
  }
}

template <class T>
constexpr RowLoops<T> loops() {
  return {softmax<T>,           softmax_grad<T>,  log_softmax<T>,
          log_softmax_grad<T>,  layer_norm<T>,    layer_norm_grad<T>,
          layer_norm_affine<T>, cross_entropy<T>, cross_entropy_grad<T>};
}

}  // namespace

const RowKernels& row_kernels_table() {
  static constexpr RowKernels table{loops<float>(), loops<double>()};
  return table;
}

}  // namespace sg::kernels::SG_ISA
