// Safetensors against files made by PyTorch's package (tests/golden/nn.py), and against files made
// to do harm.
#include "core/safetensors.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>

#include "tests/support/files.h"

namespace sg {
namespace {

using test::read_file;

namespace fs = std::filesystem;

const fs::path kGolden = fs::path(SG_TEST_DATA) / "safetensors.safetensors";

class Safetensors : public ::testing::Test {
 protected:
  // A file of `json`, behind its length or `length`, and `data` zero bytes.
  fs::path file(const std::string& json, std::size_t data, std::int64_t length = -1) const {
    const fs::path path = folder_ / "model.safetensors";
    std::ofstream out(path, std::ios::binary);
    const std::uint64_t n = length < 0 ? json.size() : static_cast<std::uint64_t>(length);
    out.write(reinterpret_cast<const char*>(&n), 8);
    out << json << std::string(data, '\0');
    return path;
  }
  std::string error_of(const fs::path& path) const {
    return error([&] { SafetensorsFile file(path); });
  }
  // The text of the error, the folder's name taken out.
  std::string error(const std::function<void()>& f) const {
    try {
      f();
    } catch (const Error& e) {
      std::string text = e.what();
      const std::string prefix = folder_.string() + "/";
      for (std::size_t at; (at = text.find(prefix)) != std::string::npos;)
        text.erase(at, prefix.size());
      return text;
    }
    return "no error";
  }

  const test::TemporaryFolder folder_;
};

// The values of tests/golden/nn.py's counted().
double counted(DType dtype, std::int64_t i) {
  switch (dtype) {
    case DType::u8:
      return static_cast<double>(i);
    case DType::i32:
      return static_cast<double>(-100000 * i);
    case DType::i64:
      return static_cast<double>((std::int64_t{1} << 40) * i - 5);
    default:
      return static_cast<double>(i - 3) / 2;
  }
}

const std::vector<SafetensorsWriter::Declared>& golden_tensors() {
  static const std::vector<SafetensorsWriter::Declared> tensors = {
      {"double", DType::f64, {3}},
      {"weight", DType::f32, {2, 3, 2}},
      {"bias", DType::f32, {5}},
      {"brain", DType::bf16, {7}},
      {"half", DType::f16, {3, 3}},
      {"long", DType::i64, {4}},
      {"int", DType::i32, {2, 2}},
      {"bytes", DType::u8, {3}},
      {"scalar", DType::f32, {}},
      {"empty", DType::f32, {0, 4}},
      {"gr\u00f6\u00dfe \"quoted\" \\ \n \x01 \U0001f600", DType::f32, {1}},
  };
  return tensors;
}

Tensor golden_value(const SafetensorsWriter::Declared& d) {
  Tensor t = Tensor::empty(d.shape, d.dtype, kCpu);
  visit(d.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    for (std::int64_t i = 0; i < t.numel(); ++i)
      t.data<T>()[i] = static_cast<T>(static_cast<compute_t<T>>(counted(d.dtype, i)));
  });
  return t;
}

TEST_F(Safetensors, ReadsWhatPyTorchWrites) {
  const SafetensorsFile file(kGolden);
  EXPECT_EQ(file.metadata(), (SafetensorsMetadata{{"format", "pt"}}));
  EXPECT_EQ(file.entries().size(), golden_tensors().size());
  for (const auto& d : golden_tensors()) {
    SCOPED_TRACE(d.name);
    const SafetensorsEntry& entry = file.entry(d.name);
    EXPECT_EQ(entry.dtype, d.dtype);
    EXPECT_EQ(entry.shape, d.shape);
    const Tensor t = file.read(d.name);
    const Tensor expected = golden_value(d);
    ASSERT_EQ(t.bytes(), expected.bytes());
    if (t.bytes() > 0) {
      EXPECT_EQ(std::memcmp(t.raw_data(), expected.raw_data(), t.bytes()), 0);
    }
  }
}

TEST_F(Safetensors, WritesTheBytesThatPyTorchWrites) {
  const char* keep = std::getenv("SG_KEEP_SAFETENSORS");
  const fs::path path = keep != nullptr ? std::string(keep) : folder_ / "model.safetensors";
  SafetensorsWriter writer(path, golden_tensors(), {{"format", "pt"}});
  for (const auto& d : golden_tensors()) writer.write(d.name, golden_value(d));
  EXPECT_EQ(fs::exists(path), false) << "a file that is not whole has its name already";
  writer.finish();
  EXPECT_EQ(read_file(path), read_file(kGolden));
}

TEST_F(Safetensors, ReadsRangesAndConverts) {
  const SafetensorsFile file(kGolden);
  std::vector<float> floats(4);
  file.read("weight", 5, std::span<float>(floats));
  EXPECT_EQ(floats, (std::vector<float>{1, 1.5, 2, 2.5}));
  file.read("brain", 3, std::span<float>(floats));
  EXPECT_EQ(floats, (std::vector<float>{0, 0.5, 1, 1.5}));
  std::vector<double> doubles(2);
  file.read("half", 7, std::span<double>(doubles));
  EXPECT_EQ(doubles, (std::vector<double>{2, 2.5}));
  file.read("half", 9, std::span<double>());
  const auto read = [&](const char* name, std::int64_t first) {
    return error([&] { file.read(name, first, std::span<float>(floats)); });
  };
  EXPECT_EQ(read("weight", 9),
            "[safetensors] " + kGolden.string() +
                ": 4 elements from 9 are outside tensor \"weight\" of 12 elements");
  EXPECT_EQ(read("weight", -1),
            "[safetensors] " + kGolden.string() +
                ": 4 elements from -1 are outside tensor \"weight\" of 12 elements");
  EXPECT_EQ(read("wait", 0), "[safetensors] " + kGolden.string() + ": there is no tensor \"wait\"");
  EXPECT_EQ(read("long", 0), "[safetensors] " + kGolden.string() +
                                 ": tensor \"long\" is i64, which is not converted from or to f32");
}

TEST_F(Safetensors, ConvertsLongTensorsPieceByPiece) {
  constexpr std::int64_t kSize = 5000;  // several pieces of the conversion's buffer
  std::vector<double> values(kSize);
  for (std::int64_t i = 0; i < kSize; ++i) values[i] = static_cast<double>(i % 256) / 4;
  const fs::path path = folder_ / "long.safetensors";
  SafetensorsWriter writer(path, {{"a", DType::bf16, {kSize}}, {"b", DType::f32, {50, 100}}});
  const std::span<const double> all(values);
  writer.write("a", all.first(1700));
  writer.write("b", Tensor::from(values, {100, 50}).transpose(0, 1));
  writer.write("a", all.subspan(1700));
  writer.finish();
  const SafetensorsFile file(path);
  std::vector<float> back(kSize - 3);
  file.read("a", 3, std::span<float>(back));
  for (std::int64_t i = 3; i < kSize; ++i) ASSERT_EQ(back[i - 3], values[i]) << i;
  const std::vector<double> b = file.read("b").to_doubles();
  for (std::int64_t i = 0; i < kSize; ++i) ASSERT_EQ(b[i], values[i % 100 * 50 + i / 100]) << i;
}

TEST_F(Safetensors, LeavesTheOldFileUntilTheNewOneIsWhole) {
  const fs::path path = folder_ / "model.safetensors";
  const auto write = [&](float value, bool finish) {
    SafetensorsWriter writer(path, {{"a", DType::f32, {1}}});
    writer.write("a", std::span<const float>(&value, 1));
    if (finish) writer.finish();
  };
  write(1, true);
  write(2, false);
  EXPECT_EQ(SafetensorsFile(path).read("a").item(), 1);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1) << "a temporary file stayed";
  const SafetensorsFile open(path);
  write(3, true);
  EXPECT_EQ(open.read("a").item(), 1) << "an open file must not change";
  EXPECT_EQ(SafetensorsFile(path).read("a").item(), 3);
}

TEST_F(Safetensors, WhatIsNoFileIsNotReplaced) {
  const auto write_to = [&](const fs::path& path) {
    return error([&] { SafetensorsWriter writer(path, {{"a", DType::f32, {3}}}); });
  };
  const std::string text = " is no regular file; choose another name";
  EXPECT_NE(write_to(folder_).find(text), std::string::npos) << write_to(folder_);
  EXPECT_TRUE(fs::is_directory(folder_));
  EXPECT_NE(write_to("/dev/null").find(text), std::string::npos) << write_to("/dev/null");
}

TEST_F(Safetensors, WriterErrors) {
  const fs::path path = folder_ / "model.safetensors";
  const float two[2] = {};
  SafetensorsWriter writer(path, {{"a", DType::f32, {3}}, {"n", DType::i64, {}}});
  writer.write("a", two, 2, DType::f32);
  EXPECT_EQ(error([&] { writer.finish(); }),
            "[safetensors] model.safetensors: tensor \"n\" has 0 of its 1 elements; write the rest "
            "before finish()");
  EXPECT_EQ(
      error([&] { writer.write("a", two, 2, DType::f32); }),
      "[safetensors] model.safetensors: 2 elements from 2 are outside tensor \"a\" of 3 elements");
  EXPECT_EQ(error([&] { writer.write("b", two, 1, DType::f32); }),
            "[safetensors] model.safetensors: tensor \"b\" was not declared");
  EXPECT_EQ(error([&] { writer.write("n", two, 1, DType::f32); }),
            "[safetensors] model.safetensors: tensor \"n\" is i64, which is not converted from or "
            "to f32");
  EXPECT_EQ(error([&] {
              writer.write("a", Tensor::zeros({1, 3}));
            }),
            "[safetensors] model.safetensors: tensor \"a\" is [1, 3], declared as [3]");
  const auto declare = [&](std::vector<SafetensorsWriter::Declared> tensors) {
    return error([&] { SafetensorsWriter w(path, tensors); });
  };
  EXPECT_EQ(declare({{"a", DType::f32, {3}}, {"a", DType::f64, {2}}}),
            "[safetensors] model.safetensors: the name \"a\" occurs twice");
  EXPECT_EQ(declare({{"__metadata__", DType::f32, {3}}}),
            "[safetensors] model.safetensors: \"__metadata__\" is no name for a tensor");
  EXPECT_EQ(declare({{"\xff", DType::f32, {3}}}),
            "[safetensors] model.safetensors: the header: byte 2 of the header is not UTF-8");
  EXPECT_EQ(error([&] { SafetensorsWriter w(folder_ / "none/x", {}); }).substr(0, 21),
            "[safetensors] none/x.");
}

TEST_F(Safetensors, RefusesWhatIsNoSuchFile) {
  EXPECT_EQ(error_of(folder_ / "none"),
            "[safetensors] none: cannot be opened: No such file or directory");
  EXPECT_EQ(error([&] { SafetensorsFile file(folder_); }),
            "[safetensors] " + folder_.string() + ": not a regular file");
  std::ofstream(folder_ / "short") << "1234567";
  EXPECT_EQ(error_of(folder_ / "short"),
            "[safetensors] short: 7 bytes; a file begins with 8 of length");
  std::ofstream(folder_ / "text") << "this is a text, not a safetensors file";
  EXPECT_EQ(
      error_of(folder_ / "text"),
      "[safetensors] text: a header of 2338328219631577204 bytes is refused; at most 100000000 "
      "are read (is this a safetensors file?)");
  EXPECT_EQ(error_of(file("{}", 0, -2)), "no error") << "an empty file is one without tensors";
}

struct Hostile {
  const char* name;
  std::string json;
  std::size_t data;
  std::string text;  // after "[safetensors] model.safetensors: "
  std::int64_t length = -1;
};

const std::vector<Hostile>& hostile() {
  const auto tensor = [](std::string name, std::string shape, std::string offsets,
                         std::string dtype = "F32") {
    return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
           ",\"data_offsets\":" + offsets + "}";
  };
  const std::string a = tensor("a", "[2]", "[0,8]");
  static const std::vector<Hostile> cases = {
      {"LengthBeyondFile", "{}", 10, "the header claims 13 bytes, 12 follow in the file", 13},
      {"LengthBeyondLimit", "{}", 0,
       "a header of 100000001 bytes is refused; at most 100000000 are read (is this a safetensors "
       "file?)",
       100000001},
      {"NoJson", "", 0, "the header: expected '{', but the header ends"},
      {"Array", "[]", 0, "the header: expected '{', got '[' at byte 0 of the header"},
      {"Truncated", "{" + a, 8, "the header: expected '}', but the header ends"},
      {"Trailing", "{" + a + "}x", 8, "byte 54 of the header is not part of its JSON"},
      {"CommaAfterLast", "{" + a + ",}", 8,
       "the header: expected a string, got '}' at byte 54 of the header"},
      {"BeyondData", "{" + a + "}", 7,
       "tensor \"a\" claims bytes [0, 8); the file has 7 bytes of data"},
      {"BackwardRange", "{" + tensor("a", "[2]", "[8,0]") + "}", 8,
       "tensor \"a\" claims bytes [8, 0); the file has 8 bytes of data"},
      {"TrailingBytes", "{" + a + "}", 9, "1 trailing bytes after the last tensor belong to none"},
      {"NothingButBytes", "{}", 9, "9 trailing bytes after the last tensor belong to none"},
      {"Overlap", "{" + a + "," + tensor("b", "[2]", "[4,12]") + "}", 12,
       "tensor \"b\" at bytes [4, 12) overlaps \"a\" at [0, 8)"},
      {"SameBytes", "{" + a + "," + tensor("b", "[2]", "[0,8]") + "}", 8,
       "tensor \"b\" at bytes [0, 8) overlaps \"a\" at [0, 8)"},
      {"Hole", "{" + a + "," + tensor("b", "[2]", "[12,20]") + "}", 20,
       "bytes [8, 12) before tensor \"b\" belong to no tensor"},
      {"HoleFirst", "{" + tensor("b", "[2]", "[4,12]") + "}", 12,
       "bytes [0, 4) before tensor \"b\" belong to no tensor"},
      {"DuplicateName", "{" + a + "," + a + "}", 8, "the name \"a\" occurs twice"},
      {"DuplicateByEscape", "{" + a + "," + tensor("\\u0061", "[2]", "[8,16]") + "}", 16,
       "the name \"a\" occurs twice"},
      {"DuplicateMetadata", "{\"__metadata__\":{},\"__metadata__\":{}}", 0,
       "the name \"__metadata__\" occurs twice"},
      {"DuplicateMetadataKey", "{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0,
       "__metadata__.a occurs twice"},
      {"DuplicateField", "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", 0,
       "tensor \"a\" has two fields dtype"},
      {"MissingField", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 0,
       "tensor \"a\" has no field data_offsets"},
      {"UnknownField", "{\"a\":{\"type\":\"F32\"}}", 0,
       "tensor \"a\" has an unknown field type; expected dtype, shape and data_offsets"},
      {"DeepNesting", "{\"a\":" + std::string(1000000, '['), 0,
       "tensor \"a\": expected '{', got '[' at byte 5 of the header"},
      {"DeepShape", "{\"a\":{\"shape\":" + std::string(1000000, '['), 0,
       "tensor \"a\".shape: expected a non-negative integer, got '[' at byte 15 of the header"},
      {"DeepMetadata", "{\"__metadata__\":{\"a\":" + std::string(1000000, '{'), 0,
       "__metadata__.a: expected a string, got '{' at byte 21 of the header"},
      {"UnknownDtype", "{" + tensor("a", "[2]", "[0,2]", "BOOL") + "}", 2,
       "tensor \"a\" has dtype \"BOOL\"; expected one of F64 F32 BF16 F16 I64 I32 U8"},
      {"LowerCaseDtype", "{" + tensor("a", "[2]", "[0,8]", "f32") + "}", 8,
       "tensor \"a\" has dtype \"f32\"; expected one of F64 F32 BF16 F16 I64 I32 U8"},
      {"SizeMismatch", "{" + tensor("a", "[3]", "[0,8]") + "}", 8,
       "tensor \"a\" of F32 [3] is 12 bytes, but claims 8 (bytes [0, 8))"},
      {"ScalarMismatch", "{" + tensor("a", "[]", "[0,8]") + "}", 8,
       "tensor \"a\" of F32 [] is 4 bytes, but claims 8 (bytes [0, 8))"},
      {"ShapeOverflow", "{" + tensor("a", "[4294967296,4294967296]", "[0,0]") + "}", 0,
       "tensor \"a\" of shape [4294967296, 4294967296] is larger than 2^63 bytes"},
      {"ShapeWrapsToSize", "{" + tensor("a", "[4611686018427387905]", "[0,4]") + "}", 4,
       "tensor \"a\" of shape [4611686018427387905] is larger than 2^63 bytes"},
      {"EmptyButOverflowing", "{" + tensor("a", "[0,4294967296,4294967296]", "[0,0]") + "}", 0,
       "tensor \"a\" of shape [0, 4294967296, 4294967296] is larger than 2^63 bytes"},
      {"NumberOverflow", "{" + tensor("a", "[9223372036854775808]", "[0,8]") + "}", 8,
       "tensor \"a\".shape: a number is beyond 2^63 - 1"},
      {"NegativeSize", "{" + tensor("a", "[-2]", "[0,8]") + "}", 8,
       "tensor \"a\".shape: expected a non-negative integer, got '-' at byte 29 of the header"},
      {"FractionalSize", "{" + tensor("a", "[2.0]", "[0,8]") + "}", 8,
       "tensor \"a\".shape: expected a non-negative integer, got '.' at byte 30 of the header"},
      {"ExponentOffset", "{" + tensor("a", "[2]", "[0,8e0]") + "}", 8,
       "tensor \"a\".data_offsets: expected a non-negative integer, got 'e' at byte 51 of the "
       "header"},
      {"LeadingZero", "{" + tensor("a", "[02]", "[0,8]") + "}", 8,
       "tensor \"a\".shape: a number begins with 0"},
      {"OneOffset", "{" + tensor("a", "[2]", "[0]") + "}", 8,
       "tensor \"a\".data_offsets: expected ',', got ']' at byte 49 of the header"},
      {"ThreeOffsets", "{" + tensor("a", "[2]", "[0,8,8]") + "}", 8,
       "tensor \"a\".data_offsets: expected ']', got ',' at byte 51 of the header"},
      {"TooManyDimensions", "{" + tensor("a", "[1,1,1,1,1,1,1,1,1]", "[0,4]") + "}", 4,
       "tensor \"a\" has more than 8 dimensions"},
      {"NameIsNotUtf8", "{\"a\xc0\xaf\":1}", 0, "the header: byte 3 of the header is not UTF-8"},
      {"NameIsCutUtf8", "{\"a\xe2\x82\":1}", 0, "the header: byte 3 of the header is not UTF-8"},
      {"NameHasSurrogateBytes", "{\"a\xed\xa0\x80\":1}", 0,
       "the header: byte 3 of the header is not UTF-8"},
      {"HalfSurrogate", "{\"\\ud800x\":1}", 0, "the header: half of a surrogate pair"},
      {"LowSurrogate", "{\"\\udc00\":1}", 0, "the header: half of a surrogate pair"},
      {"BadPair", "{\"\\ud800\\u0041\":1}", 0, "the header: half of a surrogate pair"},
      {"BadEscape", "{\"\\x41\":1}", 0, "the header: unknown escape at byte 3 of the header"},
      {"NulEscape", std::string("{\"\\\0\":1}", 8), 0,
       "the header: unknown escape at byte 3 of the header"},
      {"ShortHex", "{\"\\u00g0\":1}", 0,
       "the header: \\u needs four hexadecimal digits (byte 6 of the header)"},
      {"ControlCharacter", "{\"a\nb\":1}", 0,
       "the header: control character at byte 3 of the header"},
      {"EndlessString", "{\"abc", 0, "the header: a string does not end"},
      {"MetadataNumber", "{\"__metadata__\":{\"a\":1}}", 0,
       "__metadata__.a: expected a string, got '1' at byte 21 of the header"},
      {"TerminalCodes", "{\"\\u001b[2J\":{\"x\":1}}", 0,
       "tensor \"\\x1b[2J\" has an unknown field x; expected dtype, shape and data_offsets"},
  };
  return cases;
}

class HostileHeader : public Safetensors, public ::testing::WithParamInterface<std::size_t> {};

TEST_P(HostileHeader, IsAnErrorThatSaysWhy) {
  const Hostile& c = hostile()[GetParam()];
  EXPECT_EQ(error_of(file(c.json, c.data, c.length)), "[safetensors] model.safetensors: " + c.text);
}

INSTANTIATE_TEST_SUITE_P(All, HostileHeader, ::testing::Range(std::size_t{0}, hostile().size()),
                         [](const auto& info) { return hostile()[info.param].name; });

TEST_F(Safetensors, LongNamesAreCutInErrors) {
  const std::string text = error_of(file("{\"" + std::string(1000, 'x') + "\":1}", 0));
  EXPECT_EQ(text, "[safetensors] model.safetensors: tensor \"" + std::string(100, 'x') +
                      "... (1000 bytes)\": expected '{', got '1' at byte 1004 of the header");
}

TEST_F(Safetensors, AFileCutAfterOpeningIsAnError) {
  const fs::path path = file("{\"a\":{\"dtype\":\"U8\",\"shape\":[9],\"data_offsets\":[0,9]}}", 9);
  const SafetensorsFile open(path);
  fs::resize_file(path, fs::file_size(path) - 4);
  EXPECT_EQ(
      error([&] { open.read("a"); }),
      fmt::format("[safetensors] model.safetensors: the file ends at byte {}; it was cut after "
                  "it was opened",
                  fs::file_size(path)));
}

// A good file's bytes, changed at random: up to four edits within its first `header` bytes.
std::string mutated(const std::string& good, std::mt19937& random, std::size_t header) {
  const std::string alphabet = "{}[]\",:0123456789\\u-.eFIBU64 \xff\xc3";
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  std::string bytes = good;
  for (std::size_t edits = 1 + below(4); edits > 0 && !bytes.empty(); --edits) {
    const std::size_t end = std::min(bytes.size(), header);
    const std::size_t at = below(end);
    switch (below(5)) {
      case 0:
        bytes[at] = static_cast<char>(random());
        break;
      case 1:
        bytes[at] = alphabet[below(alphabet.size())];
        break;
      case 2:
        bytes.erase(at, 1 + below(8));
        break;
      case 3:
        bytes.insert(at, bytes.substr(below(end), below(60)));
        break;
      default:
        bytes.resize(bytes.size() - below(std::min<std::size_t>(bytes.size(), 40)));
        break;
    }
  }
  return bytes;
}

// Either it is still a header, of which every tensor lies within the data, or an Error.
TEST_F(Safetensors, MutatedHeadersNeverDoMoreThanThrow) {
  const std::string golden = read_file(kGolden);
  std::uint64_t length = 0;
  std::memcpy(&length, golden.data(), 8);
  const std::string good = golden.substr(8, length);
  const auto data = static_cast<std::int64_t>(golden.size() - 8 - length);
  std::mt19937 random(7);
  int read = 0, refused = 0;
  for (int round = 0; round < 20000; ++round) {
    const std::string json = mutated(good, random, good.size());
    try {
      for (const SafetensorsEntry& e : parse_safetensors_header("f", json, data).entries)
        ASSERT_TRUE(e.begin >= 0 && e.begin <= e.end && e.end <= data);
      ++read;
    } catch (const Error& e) {
      ASSERT_EQ(std::string_view(e.what()).substr(0, 16), "[safetensors] f:") << e.what();
      ++refused;
    }
  }
  EXPECT_GT(read, 100);
  EXPECT_GT(refused, 10000);
}

TEST_F(Safetensors, MutatedFilesNeverDoMoreThanThrow) {
  const std::string good = read_file(kGolden);
  std::mt19937 random(8);
  int refused = 0;
  for (int round = 0; round < 200; ++round) {
    const fs::path path = folder_ / fmt::format("mutated{}", round);
    std::ofstream(path, std::ios::binary) << mutated(good, random, 16);
    try {
      const SafetensorsFile file(path);
      for (const SafetensorsEntry& e : file.entries()) file.read(e.name);
    } catch (const Error& e) {
      ASSERT_EQ(std::string_view(e.what()).substr(0, 13), "[safetensors]") << e.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace sg
