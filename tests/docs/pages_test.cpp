// README and the chapters quote code, output, paths and links; all of it must be there.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <memory>
#include <regex>
#include <set>

#include "tests/docs/support.h"

namespace sg::docs {
namespace {

TEST(Pages, CodeIsQuotedWordForWord) {
  int quotes = 0, changes = 0;
  for (const std::string& page : pages()) {
    for (const Block& block : blocks_of(page)) {
      SCOPED_TRACE(page + ":" + std::to_string(block.line));
      const std::size_t space = block.marker.find(' ');
      const std::string verb = block.marker.substr(0, space);
      if (verb == "whole" || verb == "from") {
        const std::string source = read(root() / block.marker.substr(space + 1));
        if (verb == "whole") {
          EXPECT_EQ(block.text(), source);
        } else {
          EXPECT_TRUE(contains(lines_of(source), block.lines)) << "not in the file:\n"
                                                               << block.text();
        }
        ++quotes;
      } else if (block.language == "cpp") {
        ADD_FAILURE() << "code without <!-- from FILE --> before it, so nothing compiles it";
      } else if (block.language == "diff") {
        // The lines that a change finds; tests/docs/test.cmake builds the file with it.
        ASSERT_TRUE(block.marker.starts_with("change of "))
            << "no <!-- change of FILE --> before it";
        std::vector<std::string> found;
        for (const std::string& line : block.lines)
          if (!line.starts_with('+')) found.push_back(line.substr(1));
        const std::vector<std::string> file = lines_of(read(root() / block.marker.substr(10)));
        EXPECT_NE(std::search(file.begin(), file.end(), found.begin(), found.end()), file.end())
            << "not in the file:\n"
            << block.text();
        ++changes;
      }
    }
  }
  EXPECT_GE(quotes, 8);
  EXPECT_EQ(changes, 2);
}

TEST(Pages, AChangedQuoteIsFound) {
  const std::vector<std::string> file{"int f() {", "  if (a) {", "    b();", "",
                                      "    c();",  "  }",        "}"};
  EXPECT_TRUE(contains(file, {"if (a) {", "  b();", "", "  c();", "}"}));
  EXPECT_FALSE(contains(file, {"if (a) {", "  b();", "  c();", "}"}));
  EXPECT_FALSE(contains(file, {"if (a) {", "b();"}));
  EXPECT_FALSE(contains(file, {"(a) {"}));
  EXPECT_FALSE(contains(file, {}));
}

TEST(Pages, LinksLead) {
  const std::regex link(R"(\]\(([^)#:]+)(#[^)]*)?\))");
  int links = 0;
  for (const std::string& page : pages()) {
    const std::string text = prose_of(page);
    for (std::sregex_iterator it(text.begin(), text.end(), link), end; it != end; ++it, ++links)
      EXPECT_TRUE(std::filesystem::exists((root() / page).parent_path() / (*it)[1].str()))
          << page << " links to " << (*it)[1];
  }
  EXPECT_GE(links, 5);
}

TEST(Pages, NamedFilesExist) {
  const std::string rooms = "(core|autograd|nn|optim|data|dist|examples|tests|bench|docs|cmake)";
  const std::regex path("`(" + rooms + R"(/[\w./]+\.(h|cpp|cc|py|sh|md|txt|cmake))`)");
  int paths = 0;
  for (const std::string& page : pages()) {
    const std::string text = read(root() / page);
    for (std::sregex_iterator it(text.begin(), text.end(), path), end; it != end; ++it, ++paths)
      EXPECT_TRUE(std::filesystem::exists(root() / (*it)[1].str()))
          << page << " names " << (*it)[1];
  }
  EXPECT_GE(paths, 30);
}

// "`dist/unit.cpp`: `make_units`, `Unit::bytes`" says that the names occur in that file.
TEST(Pages, NamedFunctionsAreInTheirFiles) {
  const std::regex place(R"(`([a-z_]+(?:/[\w.]+)+)`: ((?:`[\w:()~]+`(?:, )?)+))");
  const std::regex name(R"((\w+)(?:\(\))?`)");
  int names = 0;
  for (const std::string& page : pages()) {
    const std::string text = read(root() / page);
    for (std::sregex_iterator it(text.begin(), text.end(), place), end; it != end; ++it) {
      const std::string file = (*it)[1], list = (*it)[2], source = read(root() / file);
      for (std::sregex_iterator n(list.begin(), list.end(), name); n != end; ++n, ++names)
        EXPECT_TRUE(std::regex_search(source, std::regex("\\b" + (*n)[1].str() + "\\b")))
            << page << ": " << (*n)[1] << " is not in " << file;
    }
  }
  EXPECT_GE(names, 15);
}

std::string run(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  std::string out;
  std::array<char, 4096> buffer;
  while (pipe && std::fgets(buffer.data(), buffer.size(), pipe.get())) out += buffer.data();
  return out;
}

// What another instruction set or another matrix product may round otherwise: the losses' last
// digit, and scratch.
bool same_line(const std::string& quoted, const std::string& real) {
  double a = 0, b = 0;
  int i = 0, j = 0;
  if (std::sscanf(quoted.c_str(), "step %d  loss %lf", &i, &a) == 2)
    return std::sscanf(real.c_str(), "step %d  loss %lf", &j, &b) == 2 && i == j &&
           std::abs(a - b) < 0.02;
  for (const char* kind : {"  buffers ", "  activations "})
    if (quoted.starts_with(kind)) return real.starts_with(kind);
  return quoted == real;
}

TEST(Readme, TheFirstProgramPrintsWhatThePageSays) {
  const std::string output = run(std::string(SG_BINARY_DIR) + "/first_program 2>&1");
  const std::vector<std::string> real = lines_of(output);
  const std::vector<std::string> quoted = lines_of(quoted_output("README.md", "first_program"));
  ASSERT_EQ(real.size(), quoted.size()) << output;
  for (std::size_t i = 0; i < real.size(); ++i)
    EXPECT_TRUE(same_line(quoted[i], real[i]))
        << "quoted: " << quoted[i] << "\nreal:   " << real[i];
}

// A quoted line of a long run: what rounding may change (losses, accuracies) is compared loosely,
// and what depends on the machine may follow in the real line.
bool like_line(const std::string& quoted, const std::string& real) {
  static const std::regex loose(R"(^(.*?)(\d+\.\d+(?:e-?\d+)?)( %.*| of the loss)?$)");
  std::smatch q, r;
  for (const char* row : {"threads ", "executor "})  // of the machine
    if (quoted.starts_with(row)) return real.starts_with(row);
  if (!std::regex_match(quoted, q, loose)) return real.starts_with(quoted);
  if (!std::regex_match(real, r, loose) || q[1] != r[1] || q[3] != r[3]) return false;
  const double a = std::stod(q[2]), b = std::stod(r[2]);
  if (q[3].str().starts_with(" %")) return std::abs(a - b) <= 12;  // of a class: 200 images
  return q[3].matched || std::abs(a - b) < 0.1;  // how far families drift is chaotic
}

// Every line is in the output of the command that stands before the block, in this order.
TEST(SlowReadme, TheLongRunsPrintWhatThePageSays) {
  const std::regex command("^.*`cifar (--plan all[^`]*)`");
  int runs = 0;
  std::string options;
  std::vector<std::string> quoted;
  bool inside = false;
  for (const std::string& line : lines_of(read(root() / "README.md"))) {
    std::smatch match;
    if (!inside && std::regex_search(line, match, command)) options = match[1];
    if (line.starts_with("```") && inside) {
      inside = false;
      const std::string output = run(std::string(SG_BINARY_DIR) + "/cifar " + options + " 2>&1");
      const std::vector<std::string> real = lines_of(output);
      std::size_t at = 0;
      for (const std::string& wanted : quoted) {
        while (at < real.size() && !like_line(wanted, real[at])) ++at;
        ASSERT_LT(at, real.size()) << "cifar " << options << " does not print\n"
                                   << wanted << "\nbut\n"
                                   << output;
        ++at;
      }
      options.clear();
      quoted.clear();
      ++runs;
    } else if (inside) {
      quoted.push_back(line);
    } else if (line == "```text" && !options.empty()) {
      inside = true;
    }
  }
  EXPECT_EQ(runs, 2);
}

// "An evening, in this order, about N lines": N within 10 % of what the named files have.
TEST(Readme, AnEveningsReadingIsAsLongAsThePageSays) {
  const std::regex announced("^An evening, in this order, about ([0-9,]+) lines:$");
  const std::regex file(R"([a-z]+/[\w./-]+\.(h|cpp|md))");
  std::set<std::string> files;
  double promised = 0;
  bool inside = false;
  for (const std::string& line : lines_of(read(root() / "README.md"))) {
    std::smatch match;
    if (std::regex_match(line, match, announced)) {
      std::string digits = match[1];
      std::erase(digits, ',');
      promised = std::stod(digits);
      inside = true;
    } else if (inside && line.starts_with("To add")) {
      break;
    } else if (inside) {
      for (std::sregex_iterator it(line.begin(), line.end(), file), end; it != end; ++it)
        files.insert(it->str());
    }
  }
  double lines = 0;
  for (const std::string& name : files)
    lines += static_cast<double>(lines_of(read(root() / name)).size());
  EXPECT_GE(files.size(), 10u);
  EXPECT_NEAR(promised, lines, 0.1 * lines);
}

TEST(Readme, TheProgramIsInTheFirstFortyLines) {
  const std::vector<std::string> lines = lines_of(read(root() / "README.md"));
  std::string first;
  for (std::size_t i = 0; i < 40 && i < lines.size(); ++i) first += lines[i] + "\n";
  for (const char* part :
       {"bash examples/run.sh", "bash tests/run.sh", "| `zero3` |", "int main() {", "\n}\n```\n"})
    EXPECT_NE(first.find(part), std::string::npos) << part;
}

}  // namespace
}  // namespace sg::docs
