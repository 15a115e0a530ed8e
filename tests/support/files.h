// Files of a test.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace sg::test {

/// A fresh folder that goes with its test.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  operator const std::filesystem::path&() const { return path_; }
  std::string string() const { return path_.string(); }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  /// `text` without the folder's name.
  std::string strip(std::string text) const;

 private:
  std::filesystem::path path_;
};

/// All of a file, byte by byte; empty if there is none.
std::string read_file(const std::filesystem::path& path);
void write_file(const std::filesystem::path& path, const std::string& text);
std::vector<std::string> lines_of(const std::string& text);

}  // namespace sg::test
