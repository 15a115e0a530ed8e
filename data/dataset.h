// A labelled image set in memory: what the readers and generators make, and what the loader reads.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace sg::data {

/// Images as bytes, [size, channels, height, width], and one label an image. Immutable once it is
/// shared: the ranks of a process and their prefetch threads read one copy.
struct Dataset {
  std::string name;  ///< for messages: "CIFAR-10 train"
  std::int64_t channels = 3, height = 32, width = 32;
  std::vector<std::uint8_t> images;
  std::vector<std::uint8_t> labels;
  std::vector<std::string> classes;  ///< name of each label

  std::int64_t size() const { return static_cast<std::int64_t>(labels.size()); }
  std::int64_t image_size() const { return channels * height * width; }
  std::span<const std::uint8_t> image(std::int64_t index) const {
    const auto bytes = static_cast<std::size_t>(image_size());
    return {images.data() + static_cast<std::size_t>(index) * bytes, bytes};
  }

  /// Throws unless there is an image for each label and a class for each label's value.
  void validate() const;
};

using DatasetPtr = std::shared_ptr<const Dataset>;

/// The two halves that every image set here comes in.
struct Splits {
  DatasetPtr train;
  DatasetPtr test;
};

/// What `--data` names: "synthetic" is the built-in set (synthetic.h), anything else a folder with
/// CIFAR-10's binary files (cifar10.h).
Splits open(const std::string& name);

}  // namespace sg::data
