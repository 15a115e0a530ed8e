// Reading and writing safetensors files, a tensor or a part of one at a time: nothing here ever
// needs the whole file in memory. Files are PyTorch's `safetensors` package's, both ways; for equal
// content the bytes are equal, too.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/safetensors_header.h"
#include "core/tensor.h"

namespace sg {

/// An open file whose header was checked. Reading is const and may be done from several threads at
/// once.
class SafetensorsFile {
 public:
  /// Throws an Error that names the file if it cannot be opened or its header is wrong.
  explicit SafetensorsFile(const std::filesystem::path& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& name() const { return name_; }
  /// In the order of their bytes.
  const std::vector<SafetensorsEntry>& entries() const { return header_.entries; }
  const SafetensorsMetadata& metadata() const { return header_.metadata; }
  bool contains(std::string_view tensor) const { return find(tensor) != nullptr; }
  /// Null if there is no such tensor.
  const SafetensorsEntry* find(std::string_view tensor) const;
  /// Throws if there is no such tensor.
  const SafetensorsEntry& entry(std::string_view tensor) const;

  /// Reads elements [first, first + out.size()) of a tensor in row-major order. Floating dtypes are
  /// converted into one another; any other difference of dtypes is an error.
  template <class T>
  void read(std::string_view tensor, std::int64_t first, std::span<T> out) const {
    read(tensor, first, std::ssize(out), out.data(), dtype_of<T>);
  }
  /// As above, `count` elements of `dtype` to `out`.
  void read(std::string_view tensor, std::int64_t first, std::int64_t count, void* out,
            DType dtype) const;
  /// The whole tensor in the file's dtype, booked as the current rank's current kind.
  Tensor read(std::string_view tensor) const;

 private:
  void read_bytes(std::int64_t offset, void* out, std::int64_t bytes) const;

  std::string name_;
  int descriptor_ = -1;
  std::int64_t data_start_ = 0;
  SafetensorsHeader header_;
  std::unordered_map<std::string_view, std::size_t>
      index_;  // into header_.entries, whose names it borrows
};

/// Writes a file whose tensors are declared first and then filled, in any order of tensors and,
/// within a tensor, from its first element to its last. The file appears under its name when
/// finish() returns, whole; until then, and if writing is given up, a file that was there before
/// stays as it was.
class SafetensorsWriter {
 public:
  struct Declared {
    std::string name;
    DType dtype = DType::f32;
    Shape shape;
  };
  /// Throws if the file cannot be made, or if a name is empty, reserved or occurs twice.
  SafetensorsWriter(const std::filesystem::path& path, const std::vector<Declared>& tensors,
                    const SafetensorsMetadata& metadata = {});
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  /// Appends elements to a tensor, converting floating dtypes.
  template <class T>
  void write(std::string_view tensor, std::span<const T> values) {
    write(tensor, values.data(), std::ssize(values), dtype_of<T>);
  }
  void write(std::string_view tensor, const void* values, std::int64_t count, DType dtype);
  /// A whole tensor of the declared shape, any strides.
  void write(std::string_view tensor, const Tensor& value);
  /// Throws if a tensor is not complete; else makes the bytes durable and gives the file its name.
  void finish();

 private:
  void write_bytes(std::int64_t offset, const void* data, std::int64_t bytes);

  std::filesystem::path path_, temporary_;
  std::string name_;
  int descriptor_ = -1;
  std::int64_t data_start_ = 0;
  SafetensorsHeader header_;
  std::vector<std::int64_t> written_;  // elements, by entry
  std::unordered_map<std::string_view, std::size_t> index_;
};

}  // namespace sg
