#include "core/cuda/context.h"
#include "core/cuda/kernels_reduce.h"
#include "core/cuda/ops.h"

namespace sg::cuda {

void reduce(const char* op, const kernels::ReducePlan& plan, kernels::Fold fold, const Tensor& x,
            const Tensor& centre, double divisor, const Tensor& out) {
  const Reduction r{plan,
                    fold,
                    x.dtype(),
                    x.raw_data(),
                    centre.defined() ? static_cast<const double*>(centre.raw_data()) : nullptr,
                    out.dtype(),
                    out.raw_data(),
                    divisor};
  const Launch launch = on(op, x.device());
  const std::int64_t size = reduce_scratch(r);
  if (size == 0) return reduce(launch, r, nullptr);
  const Scoped kind(current_rank().kind, Kind::buffers);
  const Tensor scratch = Tensor::empty({size}, DType::f64, x.device());
  reduce(launch, r, scratch.raw_data());
}

void argmax(const Tensor& x, int dim, const Tensor& out) {
  kernels::ReduceDims kept;
  std::int64_t inside = out.numel();
  for (int i = 0; i < x.dim_count(); ++i) {
    if (i == dim) continue;
    inside /= x.shape()[i];
    kept.append(x.shape()[i], x.strides()[i], inside);
  }
  argmax(on("argmax", x.device()), x.dtype(), kept, x.shape()[dim], x.strides()[dim], x.raw_data(),
         static_cast<std::int64_t*>(out.raw_data()));
}

}  // namespace sg::cuda
