#include "data/cifar10.h"

#include <array>
#include <cmath>

#include "data/synthetic.h"
#include "support.h"

namespace sg::data {
namespace {

namespace fs = std::filesystem;

constexpr const char* kGet = "get the set with data/download_cifar10.sh";

/// A folder with a small set: 4 records in each training file, 3 in the test file.
class Cifar10 : public ::testing::Test {
 protected:
  void SetUp() override {
    splits_ = synthetic({.train = 20, .test = 3, .seed = 5});
    write_cifar10(folder_.path(), splits_);
  }
  std::string read_error() {
    return error_of([&] { cifar10(folder_.path()); });
  }
  /// Changes one byte of a file.
  void poke(const std::string& name, std::streamoff offset, char byte) {
    std::fstream file(folder_ / name, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(offset);
    file.put(byte);
  }

  TemporaryFolder folder_;
  Splits splits_;
};

TEST_F(Cifar10, ReadsBackWhatWasWritten) {
  for (const char* name : {"data_batch_1.bin", "data_batch_5.bin"})
    EXPECT_EQ(fs::file_size(folder_ / name), 4u * 3073u);
  EXPECT_EQ(fs::file_size(folder_ / "test_batch.bin"), 3u * 3073u);
  const Splits read = cifar10(folder_.path());
  EXPECT_EQ(read.train->images, splits_.train->images);
  EXPECT_EQ(read.train->labels, splits_.train->labels);
  EXPECT_EQ(read.train->classes, splits_.train->classes);
  EXPECT_EQ(read.test->images, splits_.test->images);
  EXPECT_EQ(read.test->labels, splits_.test->labels);
  EXPECT_EQ(read.train->name, "CIFAR-10 train");
  EXPECT_EQ(read.test->name, "CIFAR-10 test");
}

TEST_F(Cifar10, TheFormatIsOneLabelThenPlanes) {
  std::string record(3073, '\0');
  record[0] = 7;
  record[1] = 10;              // red, row 0, column 0
  record[1 + 1024 + 32] = 20;  // green, row 1, column 0
  record[1 + 2048 + 1] = 30;   // blue, row 0, column 1
  write_file(folder_ / "one.bin", record);
  const Dataset set = read_cifar10_file(folder_ / "one.bin");
  ASSERT_EQ(set.size(), 1);
  EXPECT_EQ(set.labels[0], 7);
  EXPECT_EQ(set.image(0)[0], 10);
  EXPECT_EQ(set.image(0)[1024 + 32], 20);
  EXPECT_EQ(set.image(0)[2048 + 1], 30);
}

TEST_F(Cifar10, AcceptsTheParentFolderAndATrailingSlash) {
  const TemporaryFolder parent;
  fs::copy(folder_.path(), parent / "cifar-10-batches-bin");
  EXPECT_EQ(cifar10(parent.path()).train->labels, splits_.train->labels);
  EXPECT_EQ(cifar10(parent.string() + "/").test->images, splits_.test->images);
}

TEST_F(Cifar10, ClassNamesAreOptional) {
  fs::remove(folder_ / "batches.meta.txt");
  EXPECT_EQ(cifar10(folder_.path()).train->classes, cifar10_classes());
  EXPECT_EQ(cifar10_classes()[0], "airplane");
  EXPECT_EQ(cifar10_classes()[9], "truck");
  // The published file ends with an empty line; Windows line ends do no harm.
  write_file(folder_ / "batches.meta.txt", "a\r\nb\nc\nd\ne\nf\ng\nh\ni\nj k\n\n");
  const auto names = cifar10(folder_.path()).test->classes;
  EXPECT_EQ(names[0], "a");
  EXPECT_EQ(names[9], "j k");
}

TEST_F(Cifar10, WrongCountOfClassNames) {
  write_file(folder_ / "batches.meta.txt", "airplane\nbird\n");
  EXPECT_EQ(read_error(),
            "[cifar10] " + folder_ / "batches.meta.txt" +
                ": 2 class names, expected 10 (one a line); mend the file or delete it, it is "
                "optional");
}

TEST_F(Cifar10, TruncatedFileNamesFileAndOffset) {
  fs::resize_file(folder_ / "data_batch_3.bin", 2 * 3073 + 1000);
  EXPECT_EQ(read_error(),
            "[cifar10] " + folder_ / "data_batch_3.bin" +
                " is truncated at byte 7146: record 2 starts at byte 6146 and has 1000 bytes, "
                "expected 3073 (30730000 bytes in the published file); " +
                kGet);
  fs::resize_file(folder_ / "data_batch_3.bin", 0);
  expect_contains(read_error(),
                  folder_ / "data_batch_3.bin" + " is truncated at byte 0: the file is empty");
}

TEST_F(Cifar10, TruncatedTestFile) {
  fs::resize_file(folder_ / "test_batch.bin", 3 * 3073 - 1);
  expect_contains(read_error(),
                  folder_ / "test_batch.bin" + " is truncated at byte 9218: record 2");
}

TEST_F(Cifar10, FileCutBetweenRecordsDiffersFromItsNeighbours) {
  fs::resize_file(folder_ / "data_batch_4.bin", 3 * 3073);
  EXPECT_EQ(read_error(), "[cifar10] " + folder_ / "data_batch_4.bin" +
                              " is truncated at byte 9219: 3 records, expected 4 as in the files "
                              "beside it; " +
                              kGet);
}

TEST_F(Cifar10, TestFileBesidePublishedSizesMustHaveItToo) {
  for (int i = 1; i <= 5; ++i)  // sparse files of zeros: ten thousand records of label 0
    fs::resize_file(folder_ / fmt::format("data_batch_{}.bin", i), 10000 * 3073);
  expect_contains(read_error(), folder_ / "test_batch.bin" +
                                    " is truncated at byte 9219: 3 records, expected 10000");
  fs::resize_file(folder_ / "test_batch.bin", 10001 * 3073);
  expect_contains(read_error(), folder_ / "test_batch.bin" + " is too long at byte 30730000");
}

TEST_F(Cifar10, LabelOfElevenNamesFileAndOffset) {
  poke("data_batch_2.bin", 2 * 3073, 11);
  EXPECT_EQ(read_error(),
            "[cifar10] " + folder_ / "data_batch_2.bin" +
                ": label 11 at byte 6146 (record 2), expected 0 to 9; the file is corrupt or of "
                "another format (CIFAR-100?); " +
                kGet);
  poke("data_batch_2.bin", 2 * 3073, 9);
  EXPECT_NO_THROW(cifar10(folder_.path()));
  poke("test_batch.bin", 0, 10);
  expect_contains(read_error(), folder_ / "test_batch.bin" + ": label 10 at byte 0 (record 0)");
}

TEST_F(Cifar10, MissingFile) {
  fs::remove(folder_ / "data_batch_5.bin");
  EXPECT_EQ(read_error(), "[cifar10] " + folder_ / "data_batch_5.bin" + " is missing; " + kGet);
  fs::create_directory(folder_ / "data_batch_5.bin");
  EXPECT_EQ(read_error(), "[cifar10] " + folder_ / "data_batch_5.bin" + " is not a file; " + kGet);
}

TEST(Cifar10Folder, WithoutFilesListsWhatWasLookedFor) {
  const TemporaryFolder empty;
  EXPECT_EQ(
      error_of([&] { cifar10(empty.path()); }),
      "[cifar10] no data in " + empty.string() +
          ": looked for data_batch_1.bin ... data_batch_5.bin and test_batch.bin there and in " +
          empty / "cifar-10-batches-bin" + "; " + kGet);
  fs::create_directory(empty / "cifar-10-batches-py");
  expect_contains(error_of([&] { cifar10(empty.path()); }), "found the Python version");
}

TEST(Cifar10Folder, MustBeAFolder) {
  const TemporaryFolder folder;
  EXPECT_EQ(error_of([&] { cifar10(folder / "nothing"); }),
            "[cifar10] no folder " + folder / "nothing" + "; " + kGet);
  write_file(folder / "file", "x");
  expect_contains(error_of([&] { cifar10(folder / "file"); }),
                  folder / "file" + " is not a folder");
}

TEST(Cifar10Write, RefusesWhatTheFormatCannotHold) {
  const TemporaryFolder folder;
  const Splits seven = synthetic({.train = 7, .test = 1, .seed = 0});
  EXPECT_EQ(error_of([&] { write_cifar10(folder.path(), seven); }),
            "[cifar10] 7 training and 1 test images cannot be written as five equal files and one; "
            "use a multiple of 5 and at least 1");
  const Splits small{numbered_set(5, 8, 8), numbered_set(5, 8, 8)};
  expect_contains(error_of([&] { write_cifar10(folder.path(), small); }),
                  "images of 3 x 8 x 8 and 10 classes cannot be written");
  expect_contains(error_of([&] { write_cifar10(folder.path(), {}); }), "a split is null");
  const Splits good = synthetic({.train = 5, .test = 1, .seed = 0});
  expect_contains(error_of([&] { write_cifar10("/proc/none", good); }),
                  "cannot make the folder /proc/none");
}

TEST(SlowCifar10Real, HasThePublishedCountsAndMeans) {
  const char* folder = std::getenv("SHARDGRAD_DATA");
  if (folder == nullptr)
    GTEST_SKIP() << "SHARDGRAD_DATA is not set: it names a folder with cifar-10-batches-bin/";
  const Splits splits = cifar10(folder);
  EXPECT_EQ(splits.train->classes, cifar10_classes());
  ASSERT_EQ(splits.train->size(), 50'000);
  ASSERT_EQ(splits.test->size(), 10'000);
  std::array<int, 10> train{}, test{};
  for (const auto label : splits.train->labels) ++train[label];
  for (const auto label : splits.test->labels) ++test[label];
  for (int c = 0; c < 10; ++c) {
    EXPECT_EQ(train[static_cast<std::size_t>(c)], 5000);
    EXPECT_EQ(test[static_cast<std::size_t>(c)], 1000);
  }
  std::array<double, 3> sum{}, squares{};
  for (std::int64_t i = 0; i < splits.train->size(); ++i) {
    const auto image = splits.train->image(i);
    for (std::size_t j = 0; j < image.size(); ++j) {
      sum[j / 1024] += image[j];
      squares[j / 1024] += image[j] * image[j];
    }
  }
  const std::array<double, 3> means = {0.4914, 0.4822, 0.4465},
                              deviations = {0.2470, 0.2435, 0.2616};
  for (std::size_t c = 0; c < 3; ++c) {
    const double mean = sum[c] / (50'000.0 * 1024 * 255);
    const double deviation = std::sqrt(squares[c] / (50'000.0 * 1024 * 255 * 255) - mean * mean);
    EXPECT_NEAR(mean, means[c], 5e-5);
    EXPECT_NEAR(deviation, deviations[c], 1e-4);
  }
}

}  // namespace
}  // namespace sg::data
