#include "nn/parameter.h"

#include <algorithm>
#include <array>
#include <exception>
#include <mutex>

#include "core/parallel.h"

namespace sg::nn {

Declaration::Declaration(std::string name, const Shape& shape_, DType dtype_, Init init_)
    : full_name(std::move(name)), shape(shape_), dtype(dtype_), init(std::move(init_)) {
  SG_CHECK(is_floating(dtype), "[parameter] {} must have a floating dtype, got {}", full_name,
           name_of(dtype));
  for (const std::int64_t size : shape)
    SG_CHECK(size >= 0, "[parameter] {} has a negative size in shape {}", full_name, shape);
  SG_CHECK(init != nullptr, "[parameter] {} has no function that makes its values", full_name);
  init({.seed = 0, .name = full_name, .shape = shape}, 0, {});
}

std::shared_ptr<Storage> Declaration::get() {
  if (storage_ != nullptr) return storage_;
  const Rank& rank = current_rank();
  const auto bytes = static_cast<std::size_t>(numel(shape)) * size_of(dtype);
  if (rank.device.is_meta()) {
    if (meta_ == nullptr) meta_ = Storage::allocate(bytes, rank.device, Kind::parameters);
    return meta_;
  }
  std::shared_ptr<Storage> storage = Storage::allocate(bytes, rank.device, Kind::parameters);
  write_values(Tensor(storage, 0, shape, contiguous_strides(shape), dtype),
               [&](void* out) { fill(rank.seed, 0, numel(shape), out, dtype); });
  storage->name = "parameter " + full_name;
  return storage_ = std::move(storage);
}

void Declaration::fill(std::uint64_t seed, std::int64_t begin, std::int64_t n, void* out,
                       DType out_dtype) const {
  SG_CHECK(begin >= 0 && n >= 0 && begin <= numel(shape) && n <= numel(shape) - begin,
           "[parameter] {} of shape {} has no elements [{}, {})", full_name, shape, begin,
           begin + n);
  constexpr std::int64_t kChunk = 512, kGrain = 16384;
  const FillContext context{.seed = seed, .name = full_name, .shape = shape};
  std::exception_ptr error;  // must not leave a thread of the pool
  std::mutex mutex;
  visit_floating("parameter", out_dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    T* const values = static_cast<T*>(out);
    parallel_for(n, kGrain, [&](std::int64_t first, std::int64_t last) {
      try {
        std::array<double, kChunk> buffer;
        for (std::int64_t i = first; i < last; i += kChunk) {
          const std::int64_t count = std::min(kChunk, last - i);
          init(context, begin + i, std::span(buffer.data(), static_cast<std::size_t>(count)));
          for (std::int64_t k = 0; k < count; ++k)
            values[i + k] = static_cast<T>(static_cast<compute_t<T>>(buffer[k]));
        }
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (error == nullptr) error = std::current_exception();
      }
    });
  });
  if (error != nullptr) std::rethrow_exception(error);
}

void Declaration::release() {
  storage_.reset();
  meta_.reset();
}

Parameter::Parameter(std::string name, const Shape& shape, Init init, DType dtype)
    : slot_(std::make_shared<Slot>()) {
  auto declaration = std::make_shared<Declaration>(std::move(name), shape, dtype, std::move(init));
  Var var(declaration, 0, shape, dtype, true);
  var.impl().name = declaration->full_name;
  slot_->body = std::make_shared<Body>(Body{std::move(declaration), std::move(var), {}});
}

const Var& Parameter::var() const {
  static const Var none;
  return defined() ? body().var : none;
}

void Parameter::check_unmanaged(const char* op) const {
  SG_CHECK(!managed(),
           "[{}] {} is managed by {}; call {}() before dist::initialize, or after the engine has "
           "ended",
           op, name(), body().manager, op);
}

const Parameter& Parameter::requires_grad_(bool required) const {
  bool& now = var().impl().requires_grad;
  if (now == required) return *this;
  check_unmanaged("requires_grad_");
  now = required;
  return *this;
}

bool Parameter::declared() const {
  const Body& b = body();
  return b.var.impl().source == b.declaration && b.declaration->held() == nullptr;
}

bool Parameter::materialized() const { return held().defined(); }

Tensor Parameter::held() const {
  const Body& b = body();
  const VarImpl& v = b.var.impl();
  if (v.source == nullptr) return v.tensor;
  if (v.source != b.declaration || b.declaration->held() == nullptr) return {};
  return Tensor(b.declaration->held(), 0, v.shape, contiguous_strides(v.shape), v.dtype);
}

void Parameter::read(std::uint64_t seed, std::int64_t begin, std::int64_t n, void* out,
                     DType out_dtype) const {
  const Tensor tensor = held();
  if (!tensor.defined()) {
    SG_CHECK(declared(), "[parameter] {} is held by {}; ask that for its values", name(),
             var().impl().source->name());
    body().declaration->fill(seed, begin, n, out, out_dtype);
    return;
  }
  const Tensor span = tensor.reshape({-1}).slice(0, begin, n);
  if (n == 0) return;
  const auto bytes = static_cast<std::size_t>(n) * size_of(out_dtype);
  Tensor(Storage::wrap(out, bytes, nullptr), 0, {n}, {1}, out_dtype).copy_from(span);
}

const Parameter& Parameter::init(Init init) const {
  check_unmanaged("init");
  Declaration& d = *body().declaration;
  const Tensor tensor = held();
  SG_CHECK(tensor.defined() || declared(), "[parameter] {} is held by {}; init() it before", name(),
           var().impl().source->name());
  init({.seed = 0, .name = d.full_name, .shape = d.shape}, 0, {});
  d.init = std::move(init);
  if (tensor.defined() && !tensor.is_meta()) {
    write_values(tensor, [&](void* out) {
      d.fill(current_rank().seed, 0, tensor.numel(), out, tensor.dtype());
    });
    tensor.storage()->bump_version();
  }
  return *this;
}

void Parameter::to(DType dtype) const {
  if (dtype == this->dtype()) return;
  SG_CHECK(is_floating(dtype), "[parameter] {} must have a floating dtype, got {}", name(),
           name_of(dtype));
  check_unmanaged("to");
  Body& b = body();
  const Tensor tensor = held();
  SG_CHECK(tensor.defined() || declared(), "[parameter] {} is held by {}; convert it before",
           name(), b.var.impl().source->name());
  Tensor converted;
  if (tensor.defined()) {
    const Scoped kind(current_rank().kind, Kind::parameters);
    converted = tensor.to(dtype);
  }
  b.declaration->dtype = dtype;
  b.var.impl().dtype = dtype;
  b.var.zero_grad();
  b.declaration->release();
  if (converted.defined()) attach(converted);
}

void Parameter::attach(const Tensor& tensor) const {
  VarImpl& v = var().impl();
  SG_CHECK(tensor.defined() && tensor.shape() == v.shape && tensor.dtype() == v.dtype &&
               tensor.is_contiguous(),
           "[parameter] {} is {} {}, and cannot become {}{}", name(), name_of(v.dtype), v.shape,
           describe(tensor), tensor.defined() && !tensor.is_contiguous() ? ", not contiguous" : "");
  v.tensor = tensor;
  v.source = nullptr;
  v.offset = 0;
  body().declaration->release();
}

void Parameter::attach(std::shared_ptr<Source> source, std::int64_t offset) const {
  SG_CHECK(source != nullptr, "[parameter] {} cannot be attached to no source", name());
  VarImpl& v = var().impl();
  v.source = std::move(source);
  v.offset = offset;
  v.tensor = {};
  body().declaration->release();
}

void Parameter::tie(const Parameter& other) const {
  check_unmanaged("tie");
  SG_CHECK(shape() == other.shape() && dtype() == other.dtype(),
           "[tie] {} is {} {}, {} is {} {}; tied parameters are one", name(), name_of(dtype()),
           shape(), other.name(), name_of(other.dtype()), other.shape());
  slot_->body = other.slot_->body;
}

void Parameter::rename(const std::string& full_name) const {
  body().declaration->full_name = full_name;
  var().impl().name = full_name;
}

}  // namespace sg::nn
