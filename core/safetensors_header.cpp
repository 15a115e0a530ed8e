#include "core/safetensors_header.h"

#include <algorithm>
#include <limits>
#include <set>
#include <unordered_set>

namespace sg {
namespace {

struct DTypeName {
  DType dtype;
  std::string_view name;
};
constexpr DTypeName kDTypeNames[] = {
    {DType::f64, "F64"}, {DType::f32, "F32"}, {DType::bf16, "BF16"}, {DType::f16, "F16"},
    {DType::i64, "I64"}, {DType::i32, "I32"}, {DType::u8, "U8"}};

// The length of the UTF-8 sequence at the start of `s`, or 0: overlong forms, surrogates and values
// beyond U+10FFFF are not UTF-8 (Unicode 15, table 3-7).
std::size_t utf8_length(std::string_view s) {
  const auto byte = [&](std::size_t i) -> unsigned { return static_cast<unsigned char>(s[i]); };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || s.size() < length) return 0;
  unsigned low = 0x80, high = 0xBF;
  if (first == 0xE0) low = 0xA0;
  if (first == 0xED) high = 0x9F;
  if (first == 0xF0) low = 0x90;
  if (first == 0xF4) high = 0x8F;
  if (byte(1) < low || byte(1) > high) return 0;
  for (std::size_t i = 2; i < length; ++i)
    if (byte(i) < 0x80 || byte(i) > 0xBF) return 0;
  return length;
}

void append_utf8(std::string& out, std::uint32_t code) {
  const auto put = [&](std::uint32_t bits) { out.push_back(static_cast<char>(bits)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 63));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 63));
    put(0x80 | (code & 63));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 63));
    put(0x80 | (code >> 6 & 63));
    put(0x80 | (code & 63));
  }
}

// A reader for exactly the values that a header has: strings, non-negative integers, and the three
// objects around them.
class Parser {
 public:
  Parser(std::string_view file, std::string_view text) : file_(file), text_(text) {}

  SafetensorsHeader run() {
    SafetensorsHeader header;
    std::unordered_set<std::string> names;
    object("the header", [&](std::string name) {
      const std::string shown = printable(name);
      if (!names.insert(name).second) error("the name \"{}\" occurs twice", shown);
      if (name == "__metadata__") {
        object("__metadata__", [&](std::string key) {
          const std::string place = "__metadata__." + printable(key);
          std::string value = string(place);
          if (!header.metadata.emplace(std::move(key), std::move(value)).second)
            error("{} occurs twice", place);
        });
      } else {
        header.entries.push_back(entry(std::move(name), "tensor \"" + shown + "\""));
      }
    });
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
    if (at_ != text_.size()) error("byte {} of the header is not part of its JSON", at_);
    return header;
  }

  template <class... Args>
  [[noreturn]] void error(fmt::format_string<Args...> format, Args&&... args) const {
    fail("[safetensors] {}: {}", file_, fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

  char peek() {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }

  [[noreturn]] void unexpected(std::string_view place, std::string_view wanted) {
    peek();
    if (at_ >= text_.size()) error("{}: expected {}, but the header ends", place, wanted);
    error("{}: expected {}, got '{}' at byte {} of the header", place, wanted,
          printable(text_.substr(at_, 1)), at_);
  }

  void expect(char c, std::string_view place) {
    if (peek() != c) unexpected(place, fmt::format("'{}'", c));
    ++at_;
  }

  // Items up to `close`; a comma between them, none after the last.
  template <class F>
  void items(char close, std::string_view place, F&& item) {
    if (peek() == close) {
      ++at_;
      return;
    }
    while (true) {
      item();
      if (peek() == ',') {
        ++at_;
      } else {
        expect(close, place);
        return;
      }
    }
  }

  template <class F>
  void object(std::string_view place, F&& member) {
    expect('{', place);
    items('}', place, [&] {
      std::string key = string(place);
      expect(':', place);
      member(std::move(key));
    });
  }

  std::uint32_t hex4(std::string_view place) {
    std::uint32_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = at_ < text_.size() ? text_[at_] : '\0';
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0)
        error("{}: \\u needs four hexadecimal digits (byte {} of the header)", place, at_);
      code = code * 16 + static_cast<std::uint32_t>(digit);
    }
    return code;
  }

  void escape(std::string& out, std::string_view place) {
    const char c = at_ < text_.size() ? text_[at_++] : '\0';
    constexpr std::string_view kFrom = "\"\\/bfnrt", kTo = "\"\\/\b\f\n\r\t";
    if (const std::size_t i = kFrom.find(c); c != '\0' && i != std::string_view::npos) {
      out.push_back(kTo[i]);
      return;
    }
    if (c != 'u') error("{}: unknown escape at byte {} of the header", place, at_ - 1);
    std::uint32_t code = hex4(place);
    if (code >= 0xD800 && code < 0xDC00 && text_.substr(at_, 2) == "\\u") {
      at_ += 2;
      const std::uint32_t low = hex4(place);
      if (low < 0xDC00 || low > 0xDFFF) error("{}: half of a surrogate pair", place);
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xD800 && code <= 0xDFFF) {
      error("{}: half of a surrogate pair", place);
    }
    append_utf8(out, code);
  }

  std::string string(std::string_view place) {
    if (peek() != '"') unexpected(place, "a string");
    ++at_;
    std::string out;
    while (true) {
      if (at_ >= text_.size()) error("{}: a string does not end", place);
      const char c = text_[at_];
      if (c == '"') break;
      if (c == '\\') {
        ++at_;
        escape(out, place);
        continue;
      }
      if (static_cast<unsigned char>(c) < 0x20)
        error("{}: control character at byte {} of the header", place, at_);
      const std::size_t length = utf8_length(text_.substr(at_));
      if (length == 0) error("{}: byte {} of the header is not UTF-8", place, at_);
      out.append(text_.substr(at_, length));
      at_ += length;
    }
    ++at_;
    return out;
  }

  std::int64_t integer(std::string_view place) {
    const char first = peek();
    if (first < '0' || first > '9') unexpected(place, "a non-negative integer");
    constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
    std::int64_t value = 0;
    const std::size_t start = at_;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      const int digit = text_[at_] - '0';
      if (value > (kMax - digit) / 10) error("{}: a number is beyond 2^63 - 1", place);
      value = value * 10 + digit;
    }
    if (first == '0' && at_ > start + 1) error("{}: a number begins with 0", place);
    if (at_ < text_.size() && std::string_view(".eE").find(text_[at_]) != std::string_view::npos)
      unexpected(place, "a non-negative integer");
    return value;
  }

  DType dtype(const std::string& place) {
    const std::string name = string(place + ".dtype");
    std::string known;
    for (const DTypeName& d : kDTypeNames) {
      if (d.name == name) return d.dtype;
      known += fmt::format("{}{}", known.empty() ? "" : " ", d.name);
    }
    error("{} has dtype \"{}\"; expected one of {}", place, printable(name), known);
  }

  SafetensorsEntry entry(std::string name, const std::string& place) {
    SafetensorsEntry entry;
    entry.name = std::move(name);
    std::set<std::string> fields;
    object(place, [&](const std::string& field) {
      if (!fields.insert(field).second) error("{} has two fields {}", place, printable(field));
      const std::string where = place + "." + printable(field);
      if (field == "dtype") {
        entry.dtype = dtype(place);
      } else if (field == "shape") {
        expect('[', where);
        items(']', where, [&] {
          const std::int64_t size = integer(where);
          if (entry.shape.size() == Dims::kCapacity)
            error("{} has more than {} dimensions", place, Dims::kCapacity);
          entry.shape.push_back(size);
        });
      } else if (field == "data_offsets") {
        expect('[', where);
        entry.begin = integer(where);
        expect(',', where);
        entry.end = integer(where);
        expect(']', where);
      } else {
        error("{} has an unknown field {}; expected dtype, shape and data_offsets", place,
              printable(field));
      }
    });
    for (const char* field : {"dtype", "shape", "data_offsets"})
      if (!fields.contains(field)) error("{} has no field {}", place, field);
    return entry;
  }

  std::string_view file_, text_;
  std::size_t at_ = 0;
};

// The bytes of an entry by its shape and dtype, or -1 if strides or bytes would overflow (a
// dimension of 0 counts as 1 in strides).
std::int64_t bytes_by_shape(const SafetensorsEntry& entry) {
  constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
  std::int64_t extent = static_cast<std::int64_t>(size_of(entry.dtype));
  for (const std::int64_t size : entry.shape) {
    if (size > 1 && extent > kMax / size) return -1;
    extent *= std::max<std::int64_t>(size, 1);
  }
  return entry.numel() * static_cast<std::int64_t>(size_of(entry.dtype));
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view file, std::string_view json,
                                           std::int64_t data_bytes) {
  Parser parser(file, json);
  SafetensorsHeader header = parser.run();
  for (const SafetensorsEntry& e : header.entries) {
    const std::string name = printable(e.name);
    if (e.begin > e.end || e.end > data_bytes)
      parser.error("tensor \"{}\" claims bytes [{}, {}); the file has {} bytes of data", name,
                   e.begin, e.end, data_bytes);
    const std::int64_t bytes = bytes_by_shape(e);
    if (bytes < 0)
      parser.error("tensor \"{}\" of shape {} is larger than 2^63 bytes", name, e.shape);
    if (bytes != e.end - e.begin)
      parser.error("tensor \"{}\" of {} {} is {} bytes, but claims {} (bytes [{}, {}))", name,
                   safetensors_name_of(e.dtype), e.shape, bytes, e.end - e.begin, e.begin, e.end);
  }
  std::stable_sort(header.entries.begin(), header.entries.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::int64_t covered = 0;
  const SafetensorsEntry* previous = nullptr;
  for (const SafetensorsEntry& e : header.entries) {
    if (e.begin < covered)
      parser.error("tensor \"{}\" at bytes [{}, {}) overlaps \"{}\" at [{}, {})", printable(e.name),
                   e.begin, e.end, printable(previous->name), previous->begin, previous->end);
    if (e.begin > covered)
      parser.error("bytes [{}, {}) before tensor \"{}\" belong to no tensor", covered, e.begin,
                   printable(e.name));
    covered = e.end;
    previous = &e;
  }
  if (covered != data_bytes)
    parser.error("{} trailing bytes after the last tensor belong to none", data_bytes - covered);
  return header;
}

namespace {

void append_string(std::string& out, std::string_view text) {
  out.push_back('"');
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        } else {
          out.push_back(c);
        }
    }
  }
  out.push_back('"');
}

}  // namespace

std::string format_safetensors_header(const SafetensorsHeader& header) {
  std::string out = "{";
  const auto key = [&](std::string_view name) {
    if (out.back() != '{') out.push_back(',');
    append_string(out, name);
    out.push_back(':');
  };
  if (!header.metadata.empty()) {
    key("__metadata__");
    out.push_back('{');
    for (const auto& [name, value] : header.metadata) {
      key(name);
      append_string(out, value);
    }
    out.push_back('}');
  }
  for (const SafetensorsEntry& e : header.entries) {
    key(e.name);
    out += fmt::format("{{\"dtype\":\"{}\",\"shape\":[", safetensors_name_of(e.dtype));
    for (int i = 0; i < e.shape.size(); ++i)
      out += fmt::format("{}{}", i > 0 ? "," : "", e.shape[i]);
    out += fmt::format("],\"data_offsets\":[{},{}]}}", e.begin, e.end);
  }
  out.push_back('}');
  out.resize((out.size() + 7) / 8 * 8, ' ');
  return out;
}

std::string_view safetensors_name_of(DType dtype) {
  for (const DTypeName& d : kDTypeNames)
    if (d.dtype == dtype) return d.name;
  return "?";
}

std::string printable(std::string_view text) {
  constexpr std::size_t kShown = 100;
  std::string out;
  for (const char c : text.substr(0, kShown)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7F) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out.push_back(c);
    }
  }
  if (text.size() > kShown) out += fmt::format("... ({} bytes)", text.size());
  return out;
}

}  // namespace sg
