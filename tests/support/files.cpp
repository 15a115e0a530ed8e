#include "tests/support/files.h"

#include <unistd.h>

#include <fstream>
#include <sstream>

#include "core/check.h"

namespace sg::test {

TemporaryFolder::TemporaryFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "shardgrad-test.XXXXXX").string();
  SG_CHECK(::mkdtemp(name.data()) != nullptr, "[test] cannot make a folder like {}", name);
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;  // what ended processes still write to it
  std::filesystem::remove_all(path_, ignored);
}

std::string TemporaryFolder::strip(std::string text) const {
  const std::string prefix = path_.string() + "/";
  for (std::size_t at; (at = text.find(prefix)) != std::string::npos;)
    text.erase(at, prefix.size());
  return text;
}

std::string read_file(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

void write_file(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

}  // namespace sg::test
