#include <algorithm>

#include "core/cuda/ops.h"
#include "core/kernels/blocks.h"
#include "core/kernels/elementwise.h"
#include "core/ops.h"

namespace sg::ops {
namespace {

using cuda::Family;
using kernels::for_blocks;

// Visits the type in which values of `dtype` are computed.
template <class F>
decltype(auto) visit_compute(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f64:
      return f(Type<double>{});
    case DType::i64:
      return f(Type<std::int64_t>{});
    case DType::i32:
      return f(Type<std::int32_t>{});
    case DType::u8:
      return f(Type<std::uint8_t>{});
    default:
      return f(Type<float>{});
  }
}

[[noreturn]] void no_loop(const char* op, DType dtype) {
  fail("[{}] is not defined for {}; cast to a floating dtype first", op, name_of(dtype));
}

// The result of an elementwise op: in the memory order of the first dense argument that has the
// result's shape.
Tensor result_like(const Shape& shape, DType dtype, std::initializer_list<const Tensor*> inputs) {
  Device device = kCpu;
  for (const Tensor* input : inputs)
    if (input->defined()) device = input->device();
  for (const Tensor* input : inputs)
    if (input->defined() && input->shape() == shape && !input->is_contiguous() && input->is_dense())
      return Tensor::empty_strided(shape, input->strides(), dtype, device);
  return Tensor::empty_strided(shape, contiguous_strides(shape), dtype, device);
}

// Transcendental loops cost several times a copy.
constexpr int kCost = 4;

}  // namespace

namespace detail {

Tensor unary(int op, const char* name, const Tensor& x, double a, double b) {
  Tensor y = result_like(x.shape(), x.dtype(), {&x});
  visit_compute(x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const auto loop = kernels::elementwise_kernels().loops<T>().unary[op];
    if (loop == nullptr) no_loop(name, x.dtype());
    if (x.is_meta()) return;
    if (SG_CUDA && x.is_cuda()) return cuda::elementwise(name, {Family::unary, op, a, b}, y, {&x});
    const T ta = convert<T>(a), tb = convert<T>(b);
    for_blocks(
        y, {&x},
        [&](const void* const* in, void* out, std::int64_t n) {
          loop(static_cast<const T*>(in[0]), static_cast<T*>(out), n, ta, tb);
        },
        kCost);
  });
  return y;
}

Tensor unary_grad(int op, const char* name, const Tensor& x, const Tensor& y, const Tensor& grad,
                  double a, double b) {
  Tensor gx = result_like(grad.shape(), grad.dtype(), {&grad, &x, &y});
  visit_compute(grad.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const auto loop = kernels::elementwise_kernels().loops<T>().unary_grad[op];
    if (loop == nullptr) no_loop(name, grad.dtype());
    if (grad.is_meta()) return;
    if (SG_CUDA && grad.is_cuda())
      return cuda::elementwise(name, {Family::unary_grad, op, a, b}, gx, {&x, &y, &grad});
    const T ta = convert<T>(a), tb = convert<T>(b);
    for_blocks(
        gx, {&x, &y, &grad},
        [&](const void* const* in, void* out, std::int64_t n) {
          loop(static_cast<const T*>(in[0]), static_cast<const T*>(in[1]),
               static_cast<const T*>(in[2]), static_cast<T*>(out), n, ta, tb);
        },
        kCost);
  });
  return gx;
}

Tensor binary(int op, const char* name, const Tensor& a, const Tensor& b) {
  check_same_dtype(name, a, b);
  Tensor y = result_like(broadcast_shapes(name, a.shape(), b.shape()), a.dtype(), {&a, &b});
  visit_compute(a.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const auto loop = kernels::elementwise_kernels().loops<T>().binary[op];
    if (loop == nullptr) no_loop(name, a.dtype());
    if (a.is_meta()) return;
    if (SG_CUDA && a.is_cuda()) return cuda::elementwise(name, {Family::binary, op}, y, {&a, &b});
    for_blocks(y, {&a, &b}, [&](const void* const* in, void* out, std::int64_t n) {
      loop(static_cast<const T*>(in[0]), static_cast<const T*>(in[1]), static_cast<T*>(out), n);
    });
  });
  return y;
}

Tensor binary_grad(int op, const char* name, bool of_first, const Tensor& a, const Tensor& b,
                   const Tensor& grad) {
  Tensor g = result_like(grad.shape(), grad.dtype(), {&grad, &a, &b});
  visit_compute(grad.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const auto& loops = kernels::elementwise_kernels().loops<T>();
    const auto loop = of_first ? loops.grad_a[op] : loops.grad_b[op];
    if (loop == nullptr) no_loop(name, grad.dtype());
    if (grad.is_meta()) return;
    if (SG_CUDA && grad.is_cuda())
      return cuda::elementwise(name, {of_first ? Family::grad_a : Family::grad_b, op}, g,
                               {&a, &b, &grad});
    for_blocks(g, {&a, &b, &grad}, [&](const void* const* in, void* out, std::int64_t n) {
      loop(static_cast<const T*>(in[0]), static_cast<const T*>(in[1]), static_cast<const T*>(in[2]),
           static_cast<T*>(out), n);
    });
  });
  return g;
}

Tensor compare(int op, const char* name, const Tensor& a, const Tensor& b) {
  check_same_dtype(name, a, b);
  Tensor y = result_like(broadcast_shapes(name, a.shape(), b.shape()), DType::u8, {&a, &b});
  if (a.is_meta()) return y;
  if (SG_CUDA && a.is_cuda()) {
    cuda::elementwise(name, {Family::compare, op}, y, {&a, &b});
    return y;
  }
  visit_compute(a.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const auto loop = kernels::elementwise_kernels().loops<T>().compare[op];
    for_blocks(y, {&a, &b}, [&](const void* const* in, void* out, std::int64_t n) {
      loop(static_cast<const T*>(in[0]), static_cast<const T*>(in[1]),
           static_cast<std::uint8_t*>(out), n);
    });
  });
  return y;
}

}  // namespace detail

void add_(const Tensor& into, const Tensor& x) {
  check_same_dtype("add_", into, x);
  SG_CHECK(broadcast_shapes("add_", into.shape(), x.shape()) == into.shape(),
           "[add_] {} does not broadcast to {}, which is changed in place", x.shape(),
           into.shape());
  into.storage()->bump_version();
  if (into.is_meta()) return;
  constexpr int add = ew::index_of<ew::Add, ew::Binary>;
  if (SG_CUDA && into.is_cuda())
    return cuda::elementwise("add_", {Family::binary, add}, into, {&into, &x});
  visit_compute(into.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const auto loop = kernels::elementwise_kernels().loops<T>().binary[add];
    for_blocks(into, {&into, &x}, [&](const void* const* in, void* out, std::int64_t n) {
      loop(static_cast<const T*>(in[0]), static_cast<const T*>(in[1]), static_cast<T*>(out), n);
    });
  });
}

void mul_(const Tensor& into, double factor) {
  into.storage()->bump_version();
  if (into.is_meta()) return;
  constexpr int scale = ew::index_of<ew::MulScalar, ew::Unary>;
  if (SG_CUDA && into.is_cuda())
    return cuda::elementwise("mul_", {Family::unary, scale, factor}, into, {&into});
  visit_compute(into.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const auto loop = kernels::elementwise_kernels().loops<T>().unary[scale];
    for_blocks(into, {&into}, [&](const void* const* in, void* out, std::int64_t n) {
      loop(static_cast<const T*>(in[0]), static_cast<T*>(out), n, convert<T>(factor), T(0));
    });
  });
}

Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) {
  check_same_dtype("where", a, b);
  SG_CHECK(condition.dtype() == DType::u8, "[where] the condition must be u8, got {}",
           describe(condition));
  SG_CHECK(condition.device() == a.device(), "[where] mixed devices: {} and {}",
           name_of(condition.device()), name_of(a.device()));
  const Shape shape =
      broadcast_shapes("where", broadcast_shapes("where", condition.shape(), a.shape()), b.shape());
  Tensor y = result_like(shape, a.dtype(), {&a, &b, &condition});
  if (a.is_meta()) return y;
  if (SG_CUDA && a.is_cuda()) {
    cuda::elementwise("where", {Family::where}, y, {&condition, &a, &b});
    return y;
  }
  visit_compute(a.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const auto loop = kernels::elementwise_kernels().loops<T>().select;
    for_blocks(y, {&condition, &a, &b}, [&](const void* const* in, void* out, std::int64_t n) {
      loop(static_cast<const std::uint8_t*>(in[0]), static_cast<const T*>(in[1]),
           static_cast<const T*>(in[2]), static_cast<T*>(out), n);
    });
  });
  return y;
}

}  // namespace sg::ops
