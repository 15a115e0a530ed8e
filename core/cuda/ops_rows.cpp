// The GPU's side of core/ops_rows.cpp, ops_loss.cpp and ops_random.cpp.
#include <algorithm>
#include <bit>

#include "core/cuda/context.h"
#include "core/cuda/kernels_embedding.h"
#include "core/cuda/kernels_random.h"
#include "core/cuda/kernels_reduce.h"
#include "core/cuda/kernels_rows.h"
#include "core/cuda/make_walk.h"
#include "core/cuda/ops.h"

namespace sg::cuda {
namespace {

const void* data_or_null(const Tensor& t) { return t.defined() ? t.raw_data() : nullptr; }

// Bytes that kernels on the compute stream use until this goes.
struct Scratch {
  Tensor bytes;
  Scratch(std::int64_t size, Device device) {
    const Scoped kind(current_rank().kind, Kind::buffers);
    bytes = Tensor::empty({size}, DType::u8, device);
  }
  template <class T>
  T* as() const {
    return static_cast<T*>(bytes.raw_data());
  }
};

CrossEntropyCall call_of(const LossRows& rows) {
  const Tensor& x = rows.logits;
  const bool soft = is_floating(rows.targets.dtype());
  const void* targets = rows.targets.raw_data();
  return {x.dtype(),
          x.numel() / rows.classes,
          rows.classes,
          rows.ignore_index,
          rows.smoothing,
          x.raw_data(),
          soft ? nullptr : static_cast<const std::int64_t*>(targets),
          soft ? targets : nullptr,
          rows.stats.raw_data(),
          context(x.device()).found()};
}

Scratch loss_scratch(const LossRows& rows, const CrossEntropyCall& c) {
  return Scratch(2 * static_cast<std::int64_t>(sizeof(double)) * loss_pieces(c.rows),
                 rows.logits.device());
}

}  // namespace

void row_op(RowOp op, std::int64_t n, const Tensor& x, const Tensor& grad, const Tensor& out) {
  const Tensor g = grad.defined() ? grad.to(x.dtype()) : grad;
  const bool log = op == RowOp::log_softmax || op == RowOp::log_softmax_grad;
  row_op(on(log ? "log_softmax" : "softmax", x.device()), op, x.dtype(), x.numel() / n, n,
         x.raw_data(), data_or_null(g), out.raw_data());
}

void layer_norm(std::int64_t n, const Tensor& x, const Tensor& weight, const Tensor& bias,
                double eps, const Tensor& y, const Tensor& mean, const Tensor& rstd) {
  layer_norm(on("layer_norm", x.device()), x.dtype(), x.numel() / n, n, x.raw_data(),
             data_or_null(weight), data_or_null(bias), eps, y.raw_data(), mean.raw_data(),
             rstd.raw_data());
}

void layer_norm_grad(std::int64_t n, const Tensor& x, const Tensor& weight, const Tensor& grad,
                     const Tensor& mean, const Tensor& rstd, const Tensor& grad_x) {
  layer_norm_grad(on("layer_norm", x.device()), x.dtype(), x.numel() / n, n, x.raw_data(),
                  data_or_null(weight), grad.to(x.dtype()).raw_data(), mean.raw_data(),
                  rstd.raw_data(), grad_x.raw_data());
}

void layer_norm_grad_affine(std::int64_t n, const Tensor& x, const Tensor& grad, const Tensor& mean,
                            const Tensor& rstd, const Tensor& grad_weight,
                            const Tensor& grad_bias) {
  if (n == 0) return;
  const Launch launch = on("layer_norm", x.device());
  const Tensor g = grad.to(x.dtype());
  // As columns in reduce.cu: by sizes alone.
  const std::int64_t rows = x.numel() / n,
                     most = std::max<std::int64_t>((std::int64_t{1} << 19) / n, 1),
                     pieces = std::clamp<std::int64_t>((rows + 31) / 32, 1, most);
  const Scratch partial(pieces * 2 * n * static_cast<std::int64_t>(sizeof(double)), x.device());
  layer_norm_grad_affine(launch, x.dtype(), rows, n, x.raw_data(), g.raw_data(), mean.raw_data(),
                         rstd.raw_data(), pieces, partial.as<double>());
  for (const Tensor* out : {&grad_weight, &grad_bias}) {
    if (!out->defined()) continue;
    kernels::ReducePlan plan;
    plan.kept.append(n, 1, 1);
    plan.reduced.append(pieces, 2 * n, 0);
    const Reduction r{plan,
                      kernels::Fold::sum,
                      DType::f64,
                      partial.as<double>() + (out == &grad_bias ? n : 0),
                      nullptr,
                      out->dtype(),
                      out->raw_data(),
                      1.0};
    const Scratch scratch(reduce_scratch(r) * 8, x.device());
    reduce(launch, r, scratch.bytes.raw_data());
  }
}

void embedding(const Tensor& indices, const Tensor& weight, const Tensor& out) {
  const std::int64_t row_bytes =
      weight.shape()[1] * static_cast<std::int64_t>(size_of(weight.dtype()));
  embedding(on("embedding", weight.device()), indices.numel(),
            static_cast<const std::int64_t*>(indices.raw_data()), weight.raw_data(),
            weight.shape()[0], row_bytes, out.raw_data(), context(weight.device()).found());
}

void embedding_grad(const Tensor& indices, const Tensor& grad, std::int64_t padding_index,
                    const Tensor& grad_weight) {
  const Device device = grad.device();
  const std::int64_t count = indices.numel(), rows = grad_weight.shape()[0],
                     dim = grad_weight.shape()[1];
  SG_CHECK(count < INT32_MAX && rows < INT32_MAX,
           "[embedding] {} indices of {} rows; on a GPU both must be below 2^31", count, rows);
  const Launch launch = on("embedding", device);
  if (grad_weight.numel() > 0)
    check(cudaMemsetAsync(grad_weight.raw_data(), 0, static_cast<std::size_t>(grad_weight.bytes()),
                          launch.stream),
          "embedding", "cudaMemsetAsync");
  if (count == 0 || grad_weight.numel() == 0) return;
  // Keys run to `rows`, which stands for no row.
  const int bits = std::bit_width(static_cast<std::uint64_t>(rows));
  const std::size_t sort_bytes = sort_scratch_bytes(launch, count, bits);
  const Scratch lists(count * 16, device), sort(static_cast<std::int64_t>(sort_bytes), device);
  auto* const keys = lists.as<std::uint32_t>();
  auto* const places = lists.as<std::int32_t>() + count;
  auto* const sorted_keys = keys + 2 * count;
  auto* const sorted_places = places + 2 * count;
  embedding_keys(launch, count, static_cast<const std::int64_t*>(indices.raw_data()), rows,
                 padding_index, keys, places);
  sort_by_key(launch, count, bits, keys, places, sorted_keys, sorted_places, sort.bytes.raw_data(),
              sort_bytes);
  const std::size_t wide = grad.dtype() == DType::f64 ? sizeof(double) : sizeof(float);
  const Scratch pieces(embedding_pieces(count) * dim * static_cast<std::int64_t>(wide), device);
  embedding_grad(launch, grad.dtype(), count, sorted_keys, sorted_places, grad.raw_data(), rows,
                 dim, pieces.bytes.raw_data(), grad_weight.raw_data());
}

void cross_entropy(const LossRows& rows, const Tensor& each) {
  cross_entropy(on("cross_entropy", each.device()), call_of(rows), each.raw_data());
}

void loss_total(const LossRows& rows, const Tensor& each, bool mean, const Tensor& out) {
  const CrossEntropyCall c = call_of(rows);
  const Scratch scratch = loss_scratch(rows, c);
  loss_total(on("cross_entropy", each.device()), c, each.raw_data(), mean, scratch.as<double>(),
             out.dtype(), out.raw_data());
}

void cross_entropy_grad(const LossRows& rows, const Tensor& grad, bool mean,
                        const Tensor& grad_logits) {
  const CrossEntropyCall c = call_of(rows);
  const Launch launch = on("cross_entropy", grad.device());
  if (!mean)
    return cross_entropy_grad(launch, c, grad.raw_data(), grad.numel() == 1 ? 0 : 1,
                              grad_logits.raw_data());
  const Scratch scratch = loss_scratch(rows, c),
                scale(static_cast<std::int64_t>(sizeof(double)), grad.device());
  loss_scale(launch, c, grad.raw_data(), scratch.as<double>(), scale.bytes.raw_data());
  cross_entropy_grad(launch, c, scale.bytes.raw_data(), 0, grad_logits.raw_data());
}

void dropout(const Tensor& x, const StepState& state, const kernels::DropoutMask& mask,
             const Tensor& y) {
  const Launch launch = on("dropout", x.device());
  const std::int64_t samples = x.dim_count() > 0 ? x.shape()[0] : 1, n = x.numel() / samples;
  if (x.is_contiguous())
    return dropout(launch, x.dtype(), samples, n, state, mask, x.raw_data(), y.raw_data());
  const Tensor numbers(x.storage(), 0, x.shape(), contiguous_strides(x.shape()), x.dtype());
  const Tensor* others[] = {&x, &numbers};
  dropout_strided(launch, x.dtype(), x.numel(), n, state, mask, make_walk<3>(y, others),
                  x.raw_data(), y.raw_data());
}

}  // namespace sg::cuda
