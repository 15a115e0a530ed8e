// What the tests of room data share.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "core/check.h"
#include "core/rng.h"
#include "data/dataset.h"
#include "tests/support/files.h"
#include "tests/support/testing.h"

namespace sg::data {

using test::error_of;
using test::read_file;
using test::TemporaryFolder;
using test::write_file;

inline void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in: " << text;
}

/// `size` images whose first four bytes are the sample's number and whose other bytes are noise;
/// label = number mod 10.
inline std::shared_ptr<Dataset> numbered_set(std::int64_t size, std::int64_t height = 32,
                                             std::int64_t width = 32) {
  auto set = std::make_shared<Dataset>();
  set->name = "numbered";
  set->height = height;
  set->width = width;
  set->classes.assign(10, "class");
  for (std::int64_t i = 0; i < size; ++i) {
    set->labels.push_back(static_cast<std::uint8_t>(i % 10));
    for (std::int64_t j = 0; j < set->image_size(); ++j) {
      const auto noise = philox(1, static_cast<std::uint64_t>(j), static_cast<std::uint64_t>(i))[0];
      set->images.push_back(static_cast<std::uint8_t>(j < 4 ? i >> (8 * j) : noise));
    }
  }
  return set;
}

}  // namespace sg::data
