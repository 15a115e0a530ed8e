#include "core/tensor.h"

#include <algorithm>
#include <cstring>

#include "core/cuda/ops.h"
#include "core/kernels/copy.h"

namespace sg {

Tensor Tensor::empty_strided(const Shape& shape, const Strides& strides, DType dtype,
                             Device device) {
  const std::size_t bytes = static_cast<std::size_t>(sg::numel(shape)) * size_of(dtype);
  return Tensor(Storage::allocate(bytes, device, current_rank().kind), 0, shape, strides, dtype);
}

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  for (const std::int64_t size : shape)
    SG_CHECK(size >= 0, "[tensor] negative size in shape {}", shape);
  return empty_strided(shape, contiguous_strides(shape), dtype, device);
}

Tensor Tensor::empty(const Shape& shape, DType dtype) {
  return empty(shape, dtype, current_rank().device);
}

Tensor Tensor::empty_pinned(const Shape& shape, DType dtype) {
  for (const std::int64_t size : shape)
    SG_CHECK(size >= 0, "[tensor] negative size in shape {}", shape);
  const std::size_t bytes = static_cast<std::size_t>(sg::numel(shape)) * size_of(dtype);
  return Tensor(Storage::allocate_pinned(bytes, current_rank().kind), 0, shape,
                contiguous_strides(shape), dtype);
}

Tensor Tensor::empty_like(const Tensor& like) {
  const Strides strides = like.is_dense() ? like.strides_ : contiguous_strides(like.shape_);
  return empty_strided(like.shape_, strides, like.dtype_, like.device());
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  if (SG_CUDA && device.is_cuda())
    cuda::fill(t, 0);
  else if (!device.is_meta() && t.bytes() > 0)
    std::memset(t.raw_data(), 0, static_cast<std::size_t>(t.bytes()));
  return t;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype) {
  return zeros(shape, dtype, current_rank().device);
}

Tensor Tensor::full(const Shape& shape, double value, DType dtype) {
  Tensor t = empty(shape, dtype);
  t.fill(value);
  return t;
}

Tensor Tensor::arange(std::int64_t n, DType dtype) {
  Tensor t = empty({n}, dtype, kCpu);
  visit(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    T* data = t.data<T>();
    for (std::int64_t i = 0; i < n; ++i) data[i] = static_cast<T>(static_cast<compute_t<T>>(i));
  });
  const Device device = current_rank().device;
  return device.is_cuda() ? t.to(device) : t;
}

void* Tensor::raw_data() const {
  SG_CHECK(defined(), "[tensor] the tensor is undefined");
  SG_CHECK(!is_meta(), "[tensor] {} is on meta and has no bytes to read; run it on a device",
           describe(*this));
  return static_cast<char*>(storage_->data()) +
         offset_ * static_cast<std::int64_t>(size_of(dtype_));
}

bool Tensor::strides_match(const Strides& dense) const {
  for (int i = 0; i < shape_.size(); ++i)
    if (shape_[i] != 1 && strides_[i] != dense[i]) return numel() == 0;
  return true;
}

bool Tensor::is_channels_last() const {
  return shape_.size() == 4 && strides_match(channels_last_strides(shape_)) && !is_contiguous();
}

bool Tensor::is_dense() const {
  if (is_contiguous()) return true;
  int order[Dims::kCapacity];
  int count = 0;
  for (int i = 0; i < shape_.size(); ++i)
    if (shape_[i] != 1) order[count++] = i;
  std::sort(order, order + count, [&](int a, int b) { return strides_[a] < strides_[b]; });
  std::int64_t expected = 1;
  for (int k = 0; k < count; ++k) {
    if (strides_[order[k]] != expected) return false;
    expected *= shape_[order[k]];
  }
  return true;
}

Tensor Tensor::view_or_undefined(const Shape& asked) const {
  Shape shape = asked;
  int unknown = -1;
  std::int64_t known = 1;
  for (int i = 0; i < shape.size(); ++i) {
    if (shape[i] == -1) {
      SG_CHECK(unknown < 0, "[reshape] more than one -1 in {}", asked);
      unknown = i;
    } else {
      known *= shape[i];
    }
  }
  if (unknown >= 0) {
    SG_CHECK(known > 0 && numel() % known == 0, "[reshape] {} does not divide into {}", shape_,
             asked);
    shape[unknown] = numel() / known;
  }
  SG_CHECK(sg::numel(shape) == numel(), "[reshape] {} has {} elements, {} has {}", shape_, numel(),
           asked, sg::numel(shape));
  if (is_contiguous()) return Tensor(storage_, offset_, shape, contiguous_strides(shape), dtype_);
  // Match runs of dimensions whose strides compose; each run of the old shape must split into new
  // sizes.
  Strides strides = Dims::filled(shape.size(), 1);
  int j = shape.size() - 1;
  int i = shape_.size() - 1;
  while (i >= 0) {
    std::int64_t run = shape_[i];
    const std::int64_t stride = strides_[i];
    while (i > 0 && (shape_[i - 1] == 1 || strides_[i - 1] == stride * run)) run *= shape_[--i];
    std::int64_t taken = 1;
    while (j >= 0 && (taken < run || shape[j] == 1)) {
      strides[j] = stride * taken;
      taken *= shape[j--];
    }
    if (taken != run) return {};
    --i;
  }
  return Tensor(storage_, offset_, shape, strides, dtype_);
}

Tensor Tensor::reshape(const Shape& shape) const {
  Tensor view = view_or_undefined(shape);
  return view.defined() ? view : contiguous().view_or_undefined(shape);
}

Tensor Tensor::permute(const Dims& order) const {
  SG_CHECK(order.size() == dim_count(), "[permute] order {} does not fit shape {}", order, shape_);
  Shape shape = shape_;
  Strides strides = strides_;
  bool seen[Dims::kCapacity] = {};
  for (int i = 0; i < order.size(); ++i) {
    const int d = normalize_dim("permute", order[i], dim_count());
    SG_CHECK(!seen[d], "[permute] dimension {} twice in {}", d, order);
    seen[d] = true;
    shape[i] = shape_[d];
    strides[i] = strides_[d];
  }
  return Tensor(storage_, offset_, shape, strides, dtype_);
}

Tensor Tensor::transpose(std::int64_t a, std::int64_t b) const {
  const int i = normalize_dim("transpose", a, dim_count());
  const int j = normalize_dim("transpose", b, dim_count());
  Tensor t = *this;
  std::swap(t.shape_[i], t.shape_[j]);
  std::swap(t.strides_[i], t.strides_[j]);
  return t;
}

Tensor Tensor::slice(std::int64_t dim, std::int64_t start, std::int64_t length,
                     std::int64_t step) const {
  const int d = normalize_dim("slice", dim, dim_count());
  SG_CHECK(step >= 1, "[slice] step must be at least 1, got {}", step);
  SG_CHECK(start >= 0 && length >= 0 &&
               (length == 0 ? start <= shape_[d] : start + (length - 1) * step < shape_[d]),
           "[slice] {} elements from {} by {} are outside dimension {} of {}", length, start, step,
           d, shape_);
  Tensor t = *this;
  t.offset_ += start * strides_[d];
  t.shape_[d] = length;
  t.strides_[d] *= step;
  return t;
}

Tensor Tensor::select(std::int64_t dim, std::int64_t index) const {
  return slice(dim, index, 1).squeeze(dim);
}

Tensor Tensor::expand(const Shape& shape) const {
  if (shape == shape_) return *this;
  const int added = shape.size() - dim_count();
  bool fits = added >= 0;
  Strides strides = Dims::filled(shape.size(), 0);
  for (int i = 0; fits && i < dim_count(); ++i) {
    const bool same = shape_[i] == shape[i + added];
    fits = same || shape_[i] == 1;
    strides[i + added] = same ? strides_[i] : 0;
  }
  SG_CHECK(fits, "[expand] {} does not broadcast to {}", shape_, shape);
  return Tensor(storage_, offset_, shape, strides, dtype_);
}

Tensor Tensor::unsqueeze(std::int64_t dim) const {
  const int d = normalize_dim("unsqueeze", dim, dim_count() + 1);
  Shape shape;
  Strides strides;
  for (int i = 0; i <= dim_count(); ++i) {
    if (i == d) {
      shape.push_back(1);
      strides.push_back(1);
    }
    if (i < dim_count()) {
      shape.push_back(shape_[i]);
      strides.push_back(strides_[i]);
    }
  }
  return Tensor(storage_, offset_, shape, strides, dtype_);
}

Tensor Tensor::squeeze(std::int64_t dim) const {
  const int d = normalize_dim("squeeze", dim, dim_count());
  SG_CHECK(shape_[d] == 1, "[squeeze] dimension {} of {} is not 1", d, shape_);
  Shape shape;
  Strides strides;
  for (int i = 0; i < dim_count(); ++i) {
    if (i == d) continue;
    shape.push_back(shape_[i]);
    strides.push_back(strides_[i]);
  }
  return Tensor(storage_, offset_, shape, strides, dtype_);
}

Tensor Tensor::contiguous() const {
  if (is_contiguous()) return *this;
  Tensor t = empty(shape_, dtype_, device());
  t.copy_from(*this);
  return t;
}

Tensor Tensor::channels_last() const {
  const Strides strides = channels_last_strides(shape_);
  if (strides_match(strides)) return *this;
  Tensor t = empty_strided(shape_, strides, dtype_, device());
  t.copy_from(*this);
  return t;
}

Tensor Tensor::clone() const {
  Tensor t = empty_like(*this);
  t.copy_from(*this);
  return t;
}

Tensor Tensor::to(Device device) const {
  if (device == this->device()) return *this;
  const Strides strides = is_dense() ? strides_ : contiguous_strides(shape_);
  Tensor t = empty_strided(shape_, strides, dtype_, device);
  t.copy_from(*this);
  return t;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return *this;
  const Strides strides = is_dense() ? strides_ : contiguous_strides(shape_);
  Tensor t = empty_strided(shape_, strides, dtype, device());
  t.copy_from(*this);
  return t;
}

void Tensor::copy_from(const Tensor& source) const {
  SG_CHECK(source.shape_ == shape_, "[copy] shapes differ: from {} to {}", source.shape_, shape_);
  storage_->bump_version();
  if (is_meta() || source.is_meta()) {
    SG_CHECK(is_meta() && source.is_meta(), "[copy] from {} to {}: a meta tensor has no values",
             name_of(source.device()), name_of(device()));
    return;
  }
  if (SG_CUDA && (device().is_cuda() || source.device().is_cuda()))
    return cuda::copy(source, *this);
  kernels::copy(source, *this);
}

void Tensor::fill(double value) const {
  storage_->bump_version();
  if (is_meta()) return;
  if (SG_CUDA && device().is_cuda()) return cuda::fill(*this, value);
  kernels::fill(*this, value);
}

double Tensor::item() const {
  SG_CHECK(numel() == 1, "[item] needs one element, got shape {}", shape_);
  if (device().is_cuda()) return to(kCpu).item();
  return visit(dtype_, [&](auto type) {
    using T = typename decltype(type)::type;
    return static_cast<double>(static_cast<compute_t<T>>(*data<T>()));
  });
}

std::vector<double> Tensor::to_doubles() const { return to_vector<double>(); }

void write_values(const Tensor& contiguous, const std::function<void(void*)>& write) {
  if (!SG_CUDA || !contiguous.is_cuda()) return write(contiguous.raw_data());
  const Scoped kind(current_rank().kind, Kind::buffers);
  const Tensor host = Tensor::empty(contiguous.shape(), contiguous.dtype(), kCpu);
  write(host.raw_data());
  cuda::copy(host, contiguous);
}

std::string describe(const Tensor& tensor) {
  if (!tensor.defined()) return "undefined";
  return fmt::format("{} {}", name_of(tensor.dtype()), tensor.shape());
}

void check_same_dtype(std::string_view op, const Tensor& a, const Tensor& b) {
  SG_CHECK(a.dtype() == b.dtype(), "[{}] mixed dtypes: {} and {}; cast one of them", op,
           describe(a), describe(b));
  SG_CHECK(a.device() == b.device(), "[{}] mixed devices: {} and {}", op, name_of(a.device()),
           name_of(b.device()));
}

}  // namespace sg
