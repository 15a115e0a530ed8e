// The header of a safetensors file (huggingface.co/docs/safetensors): 8 bytes of length,
// little-endian, then that much JSON, then the tensors' bytes. It comes from strangers: everything
// is checked before anything is allocated by it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "core/shape.h"

namespace sg {

/// One tensor of a file: row-major, little-endian, at bytes [begin, end) after the header.
struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t numel() const { return sg::numel(shape); }
};

using SafetensorsMetadata = std::map<std::string, std::string>;

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  ///< in the order of their bytes
  SafetensorsMetadata metadata;
};

/// The largest header that is read, as in the reference implementation.
inline constexpr std::int64_t kMaxSafetensorsHeader = 100'000'000;

/// Parses `json`; `data_bytes` is what follows it in the file. The grammar is that of safetensors
/// alone, so nesting has no depth to exhaust. Throws an Error that names `file`, the tensor, and
/// expected against got, unless: the text is JSON in UTF-8; names and fields occur once; dtypes are
/// known; shape times element size is the bytes claimed; and the tensors cover data_bytes without
/// overlap or hole.
SafetensorsHeader parse_safetensors_header(std::string_view file, std::string_view json,
                                           std::int64_t data_bytes);

/// The header's text for `entries` (whose begin and end are set), padded with spaces to a multiple
/// of 8 bytes.
std::string format_safetensors_header(const SafetensorsHeader& header);

/// "F32"; the format's names.
std::string_view safetensors_name_of(DType dtype);

/// A name from a file as error texts show it: control characters and bytes that are not ASCII
/// escaped, long ones cut.
std::string printable(std::string_view text);

}  // namespace sg
