// CIFAR-10, binary version (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images",
// 2009).
//
// A folder holds data_batch_1.bin ... data_batch_5.bin and test_batch.bin: records of one label
// byte (0 to 9) and 3072 bytes of image, red, green and blue planes of 32 rows of 32. The published
// files have 10,000 records each. batches.meta.txt, one class name a line, is optional.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace sg::data {

inline constexpr std::int64_t kCifarImageBytes = 3 * 32 * 32;
inline constexpr std::int64_t kCifarRecordBytes = 1 + kCifarImageBytes;
inline constexpr std::int64_t kCifarFileRecords = 10'000;  ///< in each published file
inline constexpr int kCifarTrainFiles = 5;
inline constexpr int kCifarClasses = 10;

/// airplane, automobile, bird, ...: the classes where there is no batches.meta.txt.
const std::vector<std::string>& cifar10_classes();

/// Reads the set from `folder`, or from `folder`/cifar-10-batches-bin. Smaller sets of the same
/// format are welcome as long as the five training files are equally long (next to training files
/// of the published size the test file must have it too), so that a file cut between two records is
/// noticed. Errors name the file and the byte offset.
Splits cifar10(const std::string& folder);

/// Reads one file of records, any whole number of them.
Dataset read_cifar10_file(const std::string& file);

/// Writes a set of 3 x 32 x 32 images and ten classes as CIFAR-10's seven files into `folder`, made
/// if it is missing. The number of training images must be a multiple of 5.
void write_cifar10(const std::string& folder, const Splits& splits);

}  // namespace sg::data
