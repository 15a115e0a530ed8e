#include "autograd/var.h"

#include <utility>

#include "autograd/engine.h"

namespace sg {
namespace {

thread_local bool tls_grad_enabled = true;

}  // namespace

Var::Var(Tensor value, bool requires_grad) {
  if (!value.defined()) return;
  SG_CHECK(!requires_grad || is_floating(value.dtype()),
           "[var] only floating values have gradients, got {}", describe(value));
  impl_ = std::make_shared<VarImpl>();
  impl_->shape = value.shape();
  impl_->dtype = value.dtype();
  impl_->tensor = std::move(value);
  impl_->requires_grad = requires_grad;
}

Var::Var(std::shared_ptr<Source> source, std::int64_t offset, const Shape& shape, DType dtype,
         bool requires_grad)
    : impl_(std::make_shared<VarImpl>()) {
  impl_->source = std::move(source);
  impl_->offset = offset;
  impl_->shape = shape;
  impl_->dtype = dtype;
  impl_->requires_grad = requires_grad;
}

Tensor Var::value() const {
  const VarImpl& v = impl();
  if (v.source == nullptr) return v.tensor;
  return Tensor(v.source->get(), v.offset, v.shape, contiguous_strides(v.shape), v.dtype);
}

Var Var::detach() const { return Var(value(), false); }

void Var::backward(const Tensor& seed) const { run_backward(*this, seed); }

bool grad_enabled() { return tls_grad_enabled; }

NoGrad::NoGrad() : previous_(std::exchange(tls_grad_enabled, false)) {}
NoGrad::~NoGrad() { tls_grad_enabled = previous_; }
EnableGrad::EnableGrad() : previous_(std::exchange(tls_grad_enabled, true)) {}
EnableGrad::~EnableGrad() { tls_grad_enabled = previous_; }

}  // namespace sg
