// Tensor: a handle to a strided view of a storage. Copying a Tensor copies the handle, never the
// bytes.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/dtype.h"
#include "core/rank.h"
#include "core/shape.h"
#include "core/storage.h"

namespace sg {

class Tensor {
 public:
  /// An undefined tensor: no storage, `defined()` is false.
  Tensor() = default;
  /// A view of `storage`: element (i, j, ...) is at offset + i * strides[0] + j * strides[1] + ...,
  /// in elements.
  Tensor(std::shared_ptr<Storage> storage, std::int64_t offset, Shape shape, Strides strides,
         DType dtype)
      : storage_(std::move(storage)),
        offset_(offset),
        shape_(shape),
        strides_(strides),
        dtype_(dtype) {}

  /// New tensors on the current rank's device, booked as its current kind. `empty` is
  /// uninitialised.
  static Tensor empty(const Shape& shape, DType dtype = DType::f32);
  static Tensor empty(const Shape& shape, DType dtype, Device device);
  static Tensor empty_strided(const Shape& shape, const Strides& strides, DType dtype,
                              Device device);
  /// Uninitialised, in pinned main memory (Storage::allocate_pinned).
  static Tensor empty_pinned(const Shape& shape, DType dtype = DType::f32);
  /// Uninitialised, with the dtype, device and (if dense) the strides of `like`.
  static Tensor empty_like(const Tensor& like);
  static Tensor zeros(const Shape& shape, DType dtype = DType::f32);
  static Tensor zeros(const Shape& shape, DType dtype, Device device);
  static Tensor full(const Shape& shape, double value, DType dtype = DType::f32);
  /// 0, 1, ..., n - 1, on the current rank's device.
  static Tensor arange(std::int64_t n, DType dtype = DType::i64);
  /// A copy of `values` in row-major order, on the current rank's device; an error if their count
  /// does not fit `shape`.
  template <class T>
  static Tensor from(std::span<const T> values, const Shape& shape) {
    Tensor t = empty(shape, dtype_of<T>, kCpu);
    SG_CHECK(static_cast<std::int64_t>(values.size()) == t.numel(),
             "[tensor] {} values do not fill shape {}", values.size(), shape);
    std::copy(values.begin(), values.end(), t.data<T>());
    return current_rank().device.is_cuda() ? t.to(current_rank().device) : t;
  }
  template <class T>
  static Tensor from(const std::vector<T>& values, const Shape& shape) {
    return from(std::span<const T>(values), shape);
  }

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  std::int64_t size(std::int64_t dim) const {
    return shape_[normalize_dim("size", dim, dim_count())];
  }
  int dim_count() const { return shape_.size(); }
  const Strides& strides() const { return strides_; }
  std::int64_t offset() const { return offset_; }
  DType dtype() const { return dtype_; }
  Device device() const { return storage_->device(); }
  bool is_meta() const { return device().is_meta(); }
  bool is_cuda() const { return device().is_cuda(); }
  std::int64_t numel() const { return sg::numel(shape_); }
  std::int64_t bytes() const { return numel() * static_cast<std::int64_t>(size_of(dtype_)); }
  const std::shared_ptr<Storage>& storage() const { return storage_; }

  /// First element, for the CPU. An error names both dtypes if T is another one, or the device if
  /// it has no bytes or the CPU cannot reach them.
  template <class T>
  T* data() const {
    SG_CHECK(dtype_of<T> == dtype_, "[tensor] asked for {} data of a {} tensor of shape {}",
             name_of(dtype_of<T>), name_of(dtype_), shape_);
    SG_CHECK(!defined() || !is_cuda(),
             "[tensor] {} is on {}, which the CPU cannot read; copy it with to(kCpu)",
             name_of(dtype_), name_of(device()));
    return static_cast<T*>(raw_data());
  }
  /// The address, on whatever device.
  void* raw_data() const;

  bool is_contiguous() const { return strides_match(contiguous_strides(shape_)); }
  /// Four dimensions [N, C, H, W] stored as N, H, W, C (and not also contiguous in the usual
  /// order).
  bool is_channels_last() const;
  /// Every element of a block of numel() elements exactly once, in some order of dimensions.
  bool is_dense() const;

  // Views (no bytes move). Errors name the op and both shapes.
  /// Row-major order of elements kept; copies if the strides do not allow a view. One size may be
  /// -1.
  Tensor reshape(const Shape& shape) const;
  /// As reshape, but undefined (no throw) where a copy would be needed.
  Tensor view_or_undefined(const Shape& shape) const;
  Tensor permute(const Dims& order) const;
  Tensor transpose(std::int64_t a, std::int64_t b) const;
  /// [start, start + length) of a dimension, every step-th.
  Tensor slice(std::int64_t dim, std::int64_t start, std::int64_t length,
               std::int64_t step = 1) const;
  /// Index `index` of a dimension, which disappears.
  Tensor select(std::int64_t dim, std::int64_t index) const;
  /// Broadcast to `shape` with strides 0.
  Tensor expand(const Shape& shape) const;
  Tensor unsqueeze(std::int64_t dim) const;
  Tensor squeeze(std::int64_t dim) const;

  // Copies.
  /// This tensor if it is contiguous, else a row-major copy.
  Tensor contiguous() const;
  /// This tensor if it is channels-last, else such a copy (4 dimensions).
  Tensor channels_last() const;
  /// A fresh dense copy with the same strides order.
  Tensor clone() const;
  Tensor to(DType dtype) const;
  /// This tensor if it is there, else a copy of its values. A copy to the CPU waits for them.
  Tensor to(Device device) const;
  /// Copies values (and casts) from a tensor of the same shape; counts as a change in place.
  void copy_from(const Tensor& source) const;
  void fill(double value) const;
  /// The only element, as double.
  double item() const;
  /// All elements in row-major order, as double or as T.
  std::vector<double> to_doubles() const;
  template <class T>
  std::vector<T> to_vector() const {
    const Tensor t = to(dtype_of<T>).contiguous().to(kCpu);
    return std::vector<T>(t.data<T>(), t.data<T>() + t.numel());
  }

 private:
  bool strides_match(const Strides& dense) const;

  std::shared_ptr<Storage> storage_;
  std::int64_t offset_ = 0;
  Shape shape_;
  Strides strides_;
  DType dtype_ = DType::f32;
};

/// Calls write(address of the first element) for the CPU to fill a contiguous tensor, by way of
/// main memory where it is on a GPU. A change in place is the caller's to count.
void write_values(const Tensor& contiguous, const std::function<void(void* out)>& write);

/// "f32 [4, 8]", for error texts.
std::string describe(const Tensor& tensor);

/// Errors "[op] mixed dtypes: ..." / "[op] mixed devices: ..." unless both agree.
void check_same_dtype(std::string_view op, const Tensor& a, const Tensor& b);

}  // namespace sg
