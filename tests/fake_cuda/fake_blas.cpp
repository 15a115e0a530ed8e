// Matrix products on the stand-in for a GPU: plain loops, queued, that sum in the compute type.
#include <algorithm>
#include <vector>

#include "core/check.h"
#include "core/cuda/blas.h"
#include "core/cuda/context.h"
#include "core/dtype.h"

namespace sg::cuda {
namespace {

template <class T, class Out>
void multiply(const Gemm& g, std::int64_t batch) {
  using C = compute_t<Out>;
  const T* const a = static_cast<const T*>(g.a.data) + batch * g.a.stride;
  const T* const b = static_cast<const T*>(g.b.data) + batch * g.b.stride;
  const std::int64_t ai = g.a.by_columns ? 1 : g.a.ld, ak = g.a.by_columns ? g.a.ld : 1;
  const std::int64_t bk = g.b.by_columns ? 1 : g.b.ld, bj = g.b.by_columns ? g.b.ld : 1;
  // Sums of blocks of k are added up: one long chain of additions would round more than a card
  // does.
  constexpr std::int64_t kBlock = 64;
  const auto columns = static_cast<std::size_t>(g.n);
  std::vector<C> sums(columns), block(columns);
  for (std::int64_t i = 0; i < g.m; ++i) {
    std::fill(sums.begin(), sums.end(), C(0));
    for (std::int64_t first = 0; first < g.k; first += kBlock) {
      std::fill(block.begin(), block.end(), C(0));
      for (std::int64_t k = first; k < std::min(first + kBlock, g.k); ++k) {
        const C left = static_cast<C>(a[i * ai + k * ak]);
        const T* const row = b + k * bk;
        C* const sum = block.data();
        for (std::int64_t j = 0; j < g.n; ++j) sum[j] += left * static_cast<C>(row[j * bj]);
      }
      for (std::size_t j = 0; j < columns; ++j) sums[j] += block[j];
    }
    Out* const to = static_cast<Out*>(g.out) + batch * g.out_stride + i * g.out_ld;
    for (std::int64_t j = 0; j < g.n; ++j) {
      C value = sums[static_cast<std::size_t>(j)];
      if (g.bias != nullptr) value += static_cast<C>(static_cast<const T*>(g.bias)[j]);
      if (g.relu && value < C(0)) value = C(0);
      if (g.accumulate) value += static_cast<C>(to[j]);
      to[j] = static_cast<Out>(value);
    }
  }
}

// What cuBLASLt, or what is built on it, would not do right.
void check_problem(const char* op, const Gemm& g) {
  const auto check_lines = [&](const char* what, const Matrix& x, std::int64_t rows,
                               std::int64_t columns) {
    SG_CHECK(x.ld >= (x.by_columns ? rows : columns) && x.stride >= 0,
             "[{}] {} of {} x {}: lines {} apart, matrices {}", op, what, rows, columns, x.ld,
             x.stride);
  };
  SG_CHECK(g.m > 0 && g.n > 0 && g.k > 0 && g.batches > 0, "[{}] an empty product: {} of {} {} {}",
           op, g.batches, g.m, g.n, g.k);
  check_lines("a", g.a, g.m, g.k);
  check_lines("b", g.b, g.k, g.n);
  check_lines("out", {g.out, g.out_ld, false, g.out_stride}, g.m, g.n);
  SG_CHECK(g.batches == 1 || g.out_stride > 0, "[{}] results of a batch overlap", op);
  SG_CHECK(g.batches == 1 || (g.bias == nullptr && !g.relu), "[{}] an epilogue of a batch", op);
  SG_CHECK(!g.accumulate || (size_of(g.out_dtype) > 2 && g.bias == nullptr && !g.relu),
           "[{}] sums are continued in f32 and f64, without an epilogue", op);
  SG_CHECK(g.out_dtype == g.dtype || (g.out_dtype == DType::f32 && is_half(g.dtype)),
           "[{}] {} factors, {} results", op, name_of(g.dtype), name_of(g.out_dtype));
  SG_CHECK(g.out_dtype == g.dtype || g.bias == nullptr, "[{}] a bias of another dtype", op);
}

}  // namespace

// As cuBLASLt's, though nothing is written there.
constexpr std::size_t kWorkspace = 1 << 16;

void gemm(const char* op, Device device, const Gemm& g) {
  check_problem(op, g);
  context(device).workspace(kWorkspace);
  fake::enqueue(on(op, device).stream, [g] {
    visit_floating("gemm", g.dtype, [&](auto type) {
      using T = typename decltype(type)::type;
      for (std::int64_t batch = 0; batch < g.batches; ++batch)
        if (g.out_dtype == g.dtype)
          multiply<T, T>(g, batch);
        else
          multiply<T, float>(g, batch);
    });
  });
}

}  // namespace sg::cuda
