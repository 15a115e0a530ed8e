// Shapes and strides: short vectors of 64-bit integers that never allocate.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

#include "core/check.h"

namespace sg {

/// Up to kCapacity sizes or strides, in elements.
class Dims {
 public:
  static constexpr int kCapacity = 8;

  Dims() = default;
  Dims(std::initializer_list<std::int64_t> values) { assign(values.begin(), values.end()); }
  explicit Dims(std::span<const std::int64_t> values) {
    assign(values.data(), values.data() + values.size());
  }
  static Dims filled(int count, std::int64_t value) {
    Dims d;
    for (int i = 0; i < count; ++i) d.push_back(value);
    return d;
  }

  int size() const { return size_; }
  bool empty() const { return size_ == 0; }
  std::int64_t& operator[](int i) { return values_[i]; }
  std::int64_t operator[](int i) const { return values_[i]; }
  std::int64_t back() const { return values_[size_ - 1]; }
  const std::int64_t* begin() const { return values_; }
  const std::int64_t* end() const { return values_ + size_; }
  std::int64_t* begin() { return values_; }
  std::int64_t* end() { return values_ + size_; }
  void push_back(std::int64_t value) {
    SG_CHECK(size_ < kCapacity, "[shape] more than {} dimensions", kCapacity);
    values_[size_++] = value;
  }
  bool operator==(const Dims& other) const {
    if (size_ != other.size_) return false;
    for (int i = 0; i < size_; ++i)
      if (values_[i] != other.values_[i]) return false;
    return true;
  }

 private:
  template <class It>
  void assign(It first, It last) {
    for (; first != last; ++first) push_back(*first);
  }
  std::int64_t values_[kCapacity] = {};
  int size_ = 0;
};

using Shape = Dims;
using Strides = Dims;

/// Number of elements; 1 for a scalar's empty shape.
std::int64_t numel(const Shape& shape);
/// Row-major strides.
Strides contiguous_strides(const Shape& shape);
/// Strides of a dense [N, C, H, W] tensor laid out as N, H, W, C.
Strides channels_last_strides(const Shape& shape);
/// The shape both broadcast to (NumPy's rule); an error that names the op and both shapes
/// otherwise.
Shape broadcast_shapes(std::string_view op, const Shape& a, const Shape& b);
/// A dimension index in [-rank, rank) made non-negative; an error that names the op otherwise.
int normalize_dim(std::string_view op, std::int64_t dim, int rank);
/// "[4, 8]".
std::string to_string(const Dims& dims);

}  // namespace sg

template <>
struct fmt::formatter<sg::Dims> : fmt::formatter<std::string_view> {
  template <class Context>
  auto format(const sg::Dims& dims, Context& context) const {
    return fmt::formatter<std::string_view>::format(sg::to_string(dims), context);
  }
};
