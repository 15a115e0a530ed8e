#include "optim/clip.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "core/check.h"
#include "optim/cuda/exact_sum.h"
#include "optim/cuda/update.h"
#include "optim/spans.h"

namespace sg::optim {
namespace {

template <class T>
void add_squares_any(std::span<const T> grads, double divisor, ExactSum& sum) {
  SG_CHECK(divisor > 0, "[clip] divisor must be > 0, got {}", divisor);
  const auto scale = gradient_scale<T>(divisor);
  std::mutex mutex;
  for_each_part(std::ssize(grads), [&](std::int64_t begin, std::int64_t end) {
    constexpr std::int64_t kBlocks = 64;  // block sums at a time, 512 bytes of stack
    double block_sums[kBlocks];
    ExactSum part;
    for (std::int64_t at = begin; at < end; at += kBlocks * kernels::kSquaresBlock) {
      const std::int64_t n = std::min(end - at, kBlocks * kernels::kSquaresBlock);
      update_loops<T>().block_squares(grads.data() + at, n, scale, block_sums);
      const std::int64_t blocks = (n + kernels::kSquaresBlock - 1) / kernels::kSquaresBlock;
      for (std::int64_t i = 0; i < blocks; ++i) part.add(block_sums[i]);
    }
    const std::lock_guard lock(mutex);  // in any order: merging is exact
    sum.merge(part);
  });
}

}  // namespace

void add_squares(std::span<const float> grads, double divisor, ExactSum& sum) {
  add_squares_any(grads, divisor, sum);
}

void add_squares(std::span<const double> grads, double divisor, ExactSum& sum) {
  add_squares_any(grads, divisor, sum);
}

namespace {

// All on the GPU; the sum alone comes to the CPU.
template <class T>
void add_squares_on_gpu(const Tensor& grads, double divisor, ExactSum& sum) {
  const Scoped kind(current_rank().kind, Kind::buffers);
  const std::int64_t n = grads.numel();
  const std::int64_t blocks = (n + kernels::kSquaresBlock - 1) / kernels::kSquaresBlock;
  const Tensor sums = Tensor::empty({blocks}, DType::f64, grads.device());
  cuda::block_squares("clip", grads.device(), span_of<T>(grads).data(), n,
                      gradient_scale<T>(divisor), span_of<double>(sums).data());
  const Tensor words = Tensor::empty({cuda::exact_sum_words()}, DType::i64, grads.device());
  cuda::sum_exactly("clip", grads.device(), span_of<double>(sums).data(), blocks,
                    static_cast<std::int64_t*>(words.raw_data()));
  sum.merge_pieces(words.slice(0, 0, ExactPieces::kWords).to_vector<std::int64_t>());
}

}  // namespace

void add_squares(const Tensor& grads, double divisor, ExactSum& sum) {
  const auto run = [&]<class T>(Type<T>) {
    if (SG_CUDA && grads.is_cuda()) return add_squares_on_gpu<T>(grads, divisor, sum);
    add_squares(std::span<const T>(span_of<T>(grads)), divisor, sum);
  };
  if (grads.numel() == 0) return;
  if (grads.dtype() == DType::f64)
    run(Type<double>{});
  else
    run(Type<float>{});
}

double clip_coefficient(double total_norm, double max_norm) {
  SG_CHECK(max_norm >= 0, "[clip] max_norm must be >= 0, got {}", max_norm);
  const double coefficient = max_norm / (total_norm + 1e-6);
  return coefficient > 1 ? 1 : coefficient;  // NaN compares false and stays
}

}  // namespace sg::optim
