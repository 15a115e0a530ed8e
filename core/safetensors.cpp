#include "core/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

namespace sg {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian");

// Elements converted at a time: a buffer on the stack.
constexpr std::int64_t kChunk = 1024;
constexpr std::int64_t kLengthBytes = 8;

void convert(const void* from, DType from_dtype, void* to, DType to_dtype, std::int64_t count) {
  visit_floating("safetensors", from_dtype, [&](auto source) {
    visit_floating("safetensors", to_dtype, [&](auto target) {
      using S = typename decltype(source)::type;
      using T = typename decltype(target)::type;
      const S* in = static_cast<const S*>(from);
      T* out = static_cast<T*>(to);
      for (std::int64_t i = 0; i < count; ++i)
        out[i] = static_cast<T>(static_cast<compute_t<T>>(static_cast<compute_t<S>>(in[i])));
    });
  });
}

void check_access(std::string_view file, const SafetensorsEntry& entry, std::int64_t first,
                  std::int64_t count, DType dtype) {
  SG_CHECK(entry.dtype == dtype || (is_floating(entry.dtype) && is_floating(dtype)),
           "[safetensors] {}: tensor \"{}\" is {}, which is not converted from or to {}", file,
           printable(entry.name), name_of(entry.dtype), name_of(dtype));
  SG_CHECK(first >= 0 && count >= 0 && first <= entry.numel() && count <= entry.numel() - first,
           "[safetensors] {}: {} elements from {} are outside tensor \"{}\" of {} elements", file,
           count, first, printable(entry.name), entry.numel());
}

std::unordered_map<std::string_view, std::size_t> index_of(
    const std::vector<SafetensorsEntry>& entries) {
  std::unordered_map<std::string_view, std::size_t> index;
  for (std::size_t i = 0; i < entries.size(); ++i) index.emplace(entries[i].name, i);
  return index;
}

// The reference implementation's order of tensors in a file: larger elements first, so that all
// stay aligned, then by name.
int file_order(DType dtype) {
  switch (dtype) {
    case DType::i64:
      return 0;
    case DType::f64:
      return 1;
    case DType::f32:
      return 2;
    case DType::i32:
      return 3;
    case DType::bf16:
      return 4;
    case DType::f16:
      return 5;
    case DType::u8:
      break;
  }
  return 6;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : name_(path.string()) {
  descriptor_ =
      ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a FIFO must not block here
  SG_CHECK(descriptor_ >= 0, "[safetensors] {}: cannot be opened: {}", name_, std::strerror(errno));
  try {
    struct stat status {};
    SG_CHECK(::fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode),
             "[safetensors] {}: not a regular file", name_);
    const auto size = static_cast<std::int64_t>(status.st_size);
    SG_CHECK(size >= kLengthBytes, "[safetensors] {}: {} bytes; a file begins with 8 of length",
             name_, size);
    std::uint64_t length = 0;
    read_bytes(0, &length, kLengthBytes);
    SG_CHECK(length <= static_cast<std::uint64_t>(kMaxSafetensorsHeader),
             "[safetensors] {}: a header of {} bytes is refused; at most {} are read (is this a "
             "safetensors file?)",
             name_, length, kMaxSafetensorsHeader);
    const auto header_bytes = static_cast<std::int64_t>(length);
    SG_CHECK(header_bytes <= size - kLengthBytes,
             "[safetensors] {}: the header claims {} bytes, {} follow in the file", name_, length,
             size - kLengthBytes);
    std::string json(static_cast<std::size_t>(header_bytes), '\0');
    read_bytes(kLengthBytes, json.data(), header_bytes);
    data_start_ = kLengthBytes + header_bytes;
    header_ = parse_safetensors_header(name_, json, size - data_start_);
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
  index_ = index_of(header_.entries);
}

SafetensorsFile::~SafetensorsFile() { ::close(descriptor_); }

const SafetensorsEntry* SafetensorsFile::find(std::string_view tensor) const {
  const auto found = index_.find(tensor);
  return found == index_.end() ? nullptr : &header_.entries[found->second];
}

const SafetensorsEntry& SafetensorsFile::entry(std::string_view tensor) const {
  const SafetensorsEntry* entry = find(tensor);
  SG_CHECK(entry != nullptr, "[safetensors] {}: there is no tensor \"{}\"", name_,
           printable(tensor));
  return *entry;
}

void SafetensorsFile::read_bytes(std::int64_t offset, void* out, std::int64_t bytes) const {
  char* to = static_cast<char*>(out);
  while (bytes > 0) {
    const ssize_t n = ::pread(descriptor_, to, static_cast<std::size_t>(bytes), offset);
    if (n < 0 && errno == EINTR) continue;
    SG_CHECK(n >= 0, "[safetensors] {}: reading at byte {} failed: {}", name_, offset,
             std::strerror(errno));
    SG_CHECK(n > 0, "[safetensors] {}: the file ends at byte {}; it was cut after it was opened",
             name_, offset);
    to += n;
    offset += n;
    bytes -= n;
  }
}

void SafetensorsFile::read(std::string_view tensor, std::int64_t first, std::int64_t count,
                           void* out, DType dtype) const {
  const SafetensorsEntry& e = entry(tensor);
  check_access(name_, e, first, count, dtype);
  const auto element = static_cast<std::int64_t>(size_of(e.dtype));
  const std::int64_t offset = data_start_ + e.begin + first * element;
  if (e.dtype == dtype) {
    read_bytes(offset, out, count * element);
    return;
  }
  alignas(8) char buffer[kChunk * 8];
  for (std::int64_t done = 0; done < count; done += kChunk) {
    const std::int64_t n = std::min(kChunk, count - done);
    read_bytes(offset + done * element, buffer, n * element);
    convert(buffer, e.dtype,
            static_cast<char*>(out) + done * static_cast<std::int64_t>(size_of(dtype)), dtype, n);
  }
}

Tensor SafetensorsFile::read(std::string_view tensor) const {
  const SafetensorsEntry& e = entry(tensor);
  const Tensor t = Tensor::empty(e.shape, e.dtype, kCpu);
  if (e.begin != e.end) read(tensor, 0, e.numel(), t.raw_data(), e.dtype);
  return t;
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     const std::vector<Declared>& tensors,
                                     const SafetensorsMetadata& metadata)
    : path_(path), name_(path.string()) {
  header_.metadata = metadata;
  for (const Declared& d : tensors) {
    SG_CHECK(!d.name.empty() && d.name != "__metadata__",
             "[safetensors] {}: \"{}\" is no name for a tensor", name_, d.name);
    header_.entries.push_back({d.name, d.dtype, d.shape, 0, 0});
  }
  std::sort(header_.entries.begin(), header_.entries.end(), [](const auto& a, const auto& b) {
    const int x = file_order(a.dtype), y = file_order(b.dtype);
    return x != y ? x < y : a.name < b.name;
  });
  std::int64_t offset = 0;
  for (SafetensorsEntry& e : header_.entries) {
    e.begin = offset;
    offset += e.numel() * static_cast<std::int64_t>(size_of(e.dtype));
    e.end = offset;
  }
  const std::string json = format_safetensors_header(header_);
  // What we would refuse to read is not written: names that are not UTF-8 or occur twice, a header
  // beyond the limit.
  SG_CHECK(std::ssize(json) <= kMaxSafetensorsHeader,
           "[safetensors] {}: the header of {} tensors would take {} bytes; at most {} can be read",
           name_, tensors.size(), json.size(), kMaxSafetensorsHeader);
  parse_safetensors_header(name_, json, offset);
  index_ = index_of(header_.entries);
  written_.assign(header_.entries.size(), 0);

  // A rename would put a file in the place of a device or a folder.
  struct stat there;
  SG_CHECK(::stat(path_.c_str(), &there) != 0 || S_ISREG(there.st_mode),
           "[safetensors] {} is no regular file; choose another name", name_);
  for (int i = 0; descriptor_ < 0; ++i) {  // in the same folder: only there is a rename atomic
    temporary_ = path_;
    temporary_ += fmt::format(".{}-{}.tmp", ::getpid(), i);
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ < 0 && errno != EEXIST) break;
  }
  SG_CHECK(descriptor_ >= 0, "[safetensors] {}: cannot be made: {}", temporary_.string(),
           std::strerror(errno));
  const std::uint64_t length = json.size();
  data_start_ = kLengthBytes + std::ssize(json);
  try {
    write_bytes(0, &length, kLengthBytes);
    write_bytes(kLengthBytes, json.data(), std::ssize(json));
  } catch (...) {
    ::close(descriptor_);
    ::unlink(temporary_.c_str());
    throw;
  }
}

SafetensorsWriter::~SafetensorsWriter() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void SafetensorsWriter::write_bytes(std::int64_t offset, const void* data, std::int64_t bytes) {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::pwrite(descriptor_, from, static_cast<std::size_t>(bytes), offset);
    if (n < 0 && errno == EINTR) continue;
    SG_CHECK(n > 0, "[safetensors] {}: writing at byte {} failed: {}", temporary_.string(), offset,
             std::strerror(errno));
    from += n;
    offset += n;
    bytes -= n;
  }
}

void SafetensorsWriter::write(std::string_view tensor, const void* values, std::int64_t count,
                              DType dtype) {
  SG_CHECK(descriptor_ >= 0, "[safetensors] {}: the file is finished", name_);
  const auto found = index_.find(tensor);
  SG_CHECK(found != index_.end(), "[safetensors] {}: tensor \"{}\" was not declared", name_,
           printable(tensor));
  const SafetensorsEntry& e = header_.entries[found->second];
  std::int64_t& first = written_[found->second];
  check_access(name_, e, first, count, dtype);
  const auto element = static_cast<std::int64_t>(size_of(e.dtype));
  const std::int64_t offset = data_start_ + e.begin + first * element;
  if (e.dtype == dtype) {
    write_bytes(offset, values, count * element);
  } else {
    alignas(8) char buffer[kChunk * 8];
    const auto step = static_cast<std::int64_t>(size_of(dtype));
    for (std::int64_t done = 0; done < count; done += kChunk) {
      const std::int64_t n = std::min(kChunk, count - done);
      convert(static_cast<const char*>(values) + done * step, dtype, buffer, e.dtype, n);
      write_bytes(offset + done * element, buffer, n * element);
    }
  }
  first += count;
}

void SafetensorsWriter::write(std::string_view tensor, const Tensor& value) {
  const auto found = index_.find(tensor);
  if (found != index_.end()) {
    const SafetensorsEntry& e = header_.entries[found->second];
    SG_CHECK(e.shape == value.shape(), "[safetensors] {}: tensor \"{}\" is {}, declared as {}",
             name_, printable(tensor), value.shape(), e.shape);
  }
  const Tensor dense = value.contiguous().to(kCpu);
  write(tensor, dense.numel() > 0 ? dense.raw_data() : nullptr, dense.numel(), dense.dtype());
}

void SafetensorsWriter::finish() {
  SG_CHECK(descriptor_ >= 0, "[safetensors] {}: the file is finished", name_);
  for (std::size_t i = 0; i < written_.size(); ++i) {
    const SafetensorsEntry& e = header_.entries[i];
    SG_CHECK(written_[i] == e.numel(),
             "[safetensors] {}: tensor \"{}\" has {} of its {} elements; write the rest before "
             "finish()",
             name_, printable(e.name), written_[i], e.numel());
  }
  SG_CHECK(::fsync(descriptor_) == 0, "[safetensors] {}: writing failed: {}", temporary_.string(),
           std::strerror(errno));
  const int closed = ::close(std::exchange(descriptor_, -1));
  if (closed != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary_.c_str());
    fail("[safetensors] {}: cannot be put in place: {}", name_, std::strerror(error));
  }
}

}  // namespace sg
