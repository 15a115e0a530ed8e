#include "data/cifar10.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string_view>

#include "core/check.h"

namespace sg::data {
namespace {

namespace fs = std::filesystem;

constexpr const char* kGet = "get the set with data/download_cifar10.sh";
constexpr const char* kMeta = "batches.meta.txt";
constexpr const char* kTest = "test_batch.bin";

std::string train_name(int i) { return fmt::format("data_batch_{}.bin", i + 1); }

struct Close {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Close>;

File open_file(const std::string& path, const char* mode) {
  File file(std::fopen(path.c_str(), mode));
  SG_CHECK(file, "[cifar10] cannot open {} for {}: {}", path,
           mode[0] == 'r' ? "reading" : "writing", std::strerror(errno));
  return file;
}

/// Size of a file of records, which must be a whole number of them and not zero.
std::int64_t checked_size(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  SG_CHECK(fs::exists(status), "[cifar10] {} is missing; {}", path, kGet);
  SG_CHECK(fs::is_regular_file(status), "[cifar10] {} is not a file; {}", path, kGet);
  const auto size = static_cast<std::int64_t>(fs::file_size(path, error));
  SG_CHECK(!error, "[cifar10] cannot read the size of {}: {}", path, error.message());
  SG_CHECK(size > 0,
           "[cifar10] {} is truncated at byte 0: the file is empty, expected records of {} bytes "
           "({} bytes in the published file); {}",
           path, kCifarRecordBytes, kCifarFileRecords * kCifarRecordBytes, kGet);
  const std::int64_t left = size % kCifarRecordBytes;
  SG_CHECK(left == 0,
           "[cifar10] {} is truncated at byte {}: record {} starts at byte {} and has {} bytes, "
           "expected {} ({} bytes in the published file); {}",
           path, size, size / kCifarRecordBytes, size - left, left, kCifarRecordBytes,
           kCifarFileRecords * kCifarRecordBytes, kGet);
  return size;
}

/// Appends the records of a file to `out`. The file's size was checked.
void read_records(const std::string& path, std::int64_t size, Dataset& out) {
  const File file = open_file(path, "rb");
  const std::int64_t records = size / kCifarRecordBytes;
  std::array<unsigned char, kCifarRecordBytes> record;
  for (std::int64_t r = 0; r < records; ++r) {
    const std::size_t got = std::fread(record.data(), 1, record.size(), file.get());
    const std::int64_t offset = r * kCifarRecordBytes;
    SG_CHECK(got == record.size(), "[cifar10] {}: reading stopped at byte {} of {} (record {}): {}",
             path, offset + static_cast<std::int64_t>(got), size, r,
             std::ferror(file.get()) ? std::strerror(errno) : "the file became shorter meanwhile");
    SG_CHECK(record[0] < kCifarClasses,
             "[cifar10] {}: label {} at byte {} (record {}), expected 0 to {}; the file is corrupt "
             "or of another format (CIFAR-100?); {}",
             path, record[0], offset, r, kCifarClasses - 1, kGet);
    out.labels.push_back(record[0]);
    out.images.insert(out.images.end(), record.begin() + 1, record.end());
  }
}

/// The folder that has the files: `folder` itself or its cifar-10-batches-bin.
std::string find_folder(const std::string& folder) {
  std::error_code error;
  SG_CHECK(fs::exists(folder, error), "[cifar10] no folder {}; {}", folder, kGet);
  SG_CHECK(fs::is_directory(folder, error),
           "[cifar10] {} is not a folder; name the one that has the six .bin files, or its parent",
           folder);
  const std::array<fs::path, 2> candidates = {fs::path(folder),
                                              fs::path(folder) / "cifar-10-batches-bin"};
  bool python_version = false;
  for (const fs::path& candidate : candidates) {
    bool any = fs::exists(candidate / kTest, error);
    for (int i = 0; i < kCifarTrainFiles; ++i)
      any = any || fs::exists(candidate / train_name(i), error);
    if (any) return candidate.string();
    python_version = python_version || fs::exists(candidate / "data_batch_1", error);
  }
  python_version = python_version || fs::exists(fs::path(folder) / "cifar-10-batches-py", error);
  fail(
      "[cifar10] no data in {}: looked for data_batch_1.bin ... data_batch_5.bin and "
      "test_batch.bin "
      "there and in {}{}; {}",
      candidates[0].string(), candidates[1].string(),
      python_version ? " and found the Python version, which this reader does not read" : "", kGet);
}

std::vector<std::string> read_classes(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return cifar10_classes();
  const File file = open_file(path, "rb");
  std::vector<std::string> names(1);
  for (int c; (c = std::fgetc(file.get())) != EOF && names.size() <= 1000;) {
    if (c == '\n')
      names.emplace_back();
    else if (c != '\r')
      names.back() += static_cast<char>(c);
  }
  std::erase(names, "");
  SG_CHECK(names.size() == kCifarClasses,
           "[cifar10] {}: {} class names, expected {} (one a line); mend the file or delete it, "
           "it is optional",
           path, names.size(), kCifarClasses);
  return names;
}

void write_records(const std::string& path, const Dataset& set, std::int64_t begin,
                   std::int64_t end) {
  File file = open_file(path, "wb");
  bool good = true;
  for (std::int64_t i = begin; i < end; ++i) {
    const auto image = set.image(i);
    good = good && std::fputc(set.labels[static_cast<std::size_t>(i)], file.get()) != EOF &&
           std::fwrite(image.data(), 1, image.size(), file.get()) == image.size();
  }
  good = std::fclose(file.release()) == 0 && good;
  SG_CHECK(good, "[cifar10] cannot write {}: {}", path, std::strerror(errno));
}

void check_writable(const Dataset& set) {
  set.validate();
  SG_CHECK(set.channels == 3 && set.height == 32 && set.width == 32 &&
               set.classes.size() == kCifarClasses,
           "[cifar10] {}: images of {} x {} x {} and {} classes cannot be written as CIFAR-10; "
           "expected 3 x 32 x 32 and {}",
           set.name, set.channels, set.height, set.width, set.classes.size(), kCifarClasses);
}

}  // namespace

const std::vector<std::string>& cifar10_classes() {
  static const std::vector<std::string> names = {
      "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"};
  return names;
}

Dataset read_cifar10_file(const std::string& file) {
  Dataset set;
  set.name = file;
  set.classes = cifar10_classes();
  read_records(file, checked_size(file), set);
  return set;
}

Splits cifar10(const std::string& folder) {
  const std::string found = find_folder(folder);
  std::vector<std::string> paths;
  for (int i = 0; i < kCifarTrainFiles; ++i)
    paths.push_back((fs::path(found) / train_name(i)).string());
  paths.push_back((fs::path(found) / kTest).string());

  std::vector<std::int64_t> sizes;
  for (const std::string& path : paths) sizes.push_back(checked_size(path));
  // A file cut between two records looks whole: only its neighbours can tell.
  const std::int64_t expected = *std::max_element(sizes.begin(), sizes.begin() + kCifarTrainFiles);
  const bool published = expected == kCifarFileRecords * kCifarRecordBytes;
  const std::size_t files = published ? paths.size() : kCifarTrainFiles;
  for (std::size_t i = 0; i < files; ++i)
    SG_CHECK(sizes[i] == expected,
             "[cifar10] {} is {} at byte {}: {} records, expected {} as in the files beside it; {}",
             paths[i], sizes[i] < expected ? "truncated" : "too long", std::min(sizes[i], expected),
             sizes[i] / kCifarRecordBytes, expected / kCifarRecordBytes, kGet);

  auto train = std::make_shared<Dataset>();
  auto test = std::make_shared<Dataset>();
  train->name = "CIFAR-10 train";
  test->name = "CIFAR-10 test";
  train->classes = test->classes = read_classes((fs::path(found) / kMeta).string());
  for (std::size_t i = 0; i < paths.size(); ++i) {
    Dataset& set = i < kCifarTrainFiles ? *train : *test;
    if (set.labels.empty()) {
      const std::int64_t records =
          sizes[i] / kCifarRecordBytes * (i < kCifarTrainFiles ? kCifarTrainFiles : 1);
      set.labels.reserve(static_cast<std::size_t>(records));
      set.images.reserve(static_cast<std::size_t>(records * kCifarImageBytes));
    }
    read_records(paths[i], sizes[i], set);
  }
  return {std::move(train), std::move(test)};
}

void write_cifar10(const std::string& folder, const Splits& splits) {
  SG_CHECK(splits.train && splits.test, "[cifar10] nothing to write: a split is null");
  check_writable(*splits.train);
  check_writable(*splits.test);
  const std::int64_t n = splits.train->size();
  SG_CHECK(
      n > 0 && n % kCifarTrainFiles == 0 && splits.test->size() > 0,
      "[cifar10] {} training and {} test images cannot be written as five equal files and one; "
      "use a multiple of {} and at least 1",
      n, splits.test->size(), kCifarTrainFiles);
  std::error_code error;
  fs::create_directories(folder, error);
  SG_CHECK(!error, "[cifar10] cannot make the folder {}: {}", folder, error.message());
  const std::int64_t records = n / kCifarTrainFiles;
  const fs::path root(folder);
  for (int i = 0; i < kCifarTrainFiles; ++i)
    write_records((root / train_name(i)).string(), *splits.train, i * records, (i + 1) * records);
  write_records((root / kTest).string(), *splits.test, 0, splits.test->size());
  const std::string meta = (root / kMeta).string();
  File file = open_file(meta, "wb");
  bool good = true;
  for (const std::string& name : splits.train->classes)
    good = good && std::fputs((name + "\n").c_str(), file.get()) >= 0;
  good = std::fclose(file.release()) == 0 && good;
  SG_CHECK(good, "[cifar10] cannot write {}: {}", meta, std::strerror(errno));
}

}  // namespace sg::data
