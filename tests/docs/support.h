// The pages of the project, as text that tests can hold to the code.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/files.h"

namespace sg::docs {

inline std::filesystem::path root() { return SG_SOURCE_DIR; }

inline std::string read(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path.string());
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

using test::lines_of;

/// README.md, SECURITY.md, bench/README.md and docs/*.md, relative to the root.
inline std::vector<std::string> pages() {
  std::vector<std::string> names{"README.md", "SECURITY.md", "bench/README.md"};
  for (const auto& entry : std::filesystem::directory_iterator(root() / "docs"))
    if (entry.path().extension() == ".md")
      names.push_back("docs/" + entry.path().filename().string());
  return names;
}

/// A fenced block. `marker` is the text of an HTML comment in the line before it: "from FILE" (a
/// part of that file, at any indentation), "whole FILE", "change of FILE" (a diff that test.cmake
/// applies), or "output NAME" (what a test produces).
struct Block {
  std::string language, marker;
  int line = 0;  ///< of the opening fence, from 1
  std::vector<std::string> lines;
  std::string text() const {
    std::string all;
    for (const std::string& l : lines) all += l + "\n";
    return all;
  }
};

inline std::vector<Block> blocks_of(const std::string& page) {
  std::vector<Block> blocks;
  const std::vector<std::string> lines = lines_of(read(root() / page));
  bool inside = false;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::string& line = lines[i];
    if (line.starts_with("```")) {
      inside = !inside;
      if (!inside) continue;
      Block block{
          .language = line.substr(3), .marker = {}, .line = static_cast<int>(i) + 1, .lines = {}};
      if (i > 0 && lines[i - 1].starts_with("<!-- ") && lines[i - 1].ends_with(" -->"))
        block.marker = lines[i - 1].substr(5, lines[i - 1].size() - 9);
      blocks.push_back(std::move(block));
    } else if (inside) {
      blocks.back().lines.push_back(line);
    }
  }
  EXPECT_FALSE(inside) << page << " ends inside a block";
  return blocks;
}

/// A page without its fenced blocks.
inline std::string prose_of(const std::string& page) {
  std::string text;
  bool inside = false;
  for (const std::string& line : lines_of(read(root() / page))) {
    if (line.starts_with("```")) {
      inside = !inside;
    } else if (!inside) {
      text += line + "\n";
    }
  }
  return text;
}

/// The block marked "output NAME"; its text.
inline std::string quoted_output(const std::string& page, const std::string& name) {
  for (const Block& block : blocks_of(page))
    if (block.marker == "output " + name) return block.text();
  ADD_FAILURE() << page << " has no block marked <!-- output " << name << " -->";
  return "";
}

/// `part` is found in `lines`, one after the other, all shifted by one indentation (blank lines by
/// none).
inline bool contains(const std::vector<std::string>& lines, const std::vector<std::string>& part) {
  if (part.empty()) return false;
  for (std::size_t start = 0; start + part.size() <= lines.size(); ++start) {
    if (!lines[start].ends_with(part[0])) continue;
    const std::string indent = lines[start].substr(0, lines[start].size() - part[0].size());
    if (indent.find_first_not_of(' ') != std::string::npos) continue;
    std::size_t i = 0;
    while (i < part.size() && lines[start + i] == (part[i].empty() ? "" : indent + part[i])) ++i;
    if (i == part.size()) return true;
  }
  return false;
}

}  // namespace sg::docs
