// Lines with their rank, whatever the pieces in which they arrive.
#include "dist/cli/lines.h"

#include <gtest/gtest.h>

namespace sg::cli {
namespace {

TEST(Lines, EachGetsThePrefix) {
  LinePrefixer lines("[rank2] ");
  std::string out;
  lines.feed("one\ntwo\n\nthr", out);
  EXPECT_EQ(out, "[rank2] one\n[rank2] two\n[rank2] \n");
  lines.feed("ee\n", out);
  EXPECT_TRUE(out.ends_with("\n[rank2] three\n"));
  lines.finish(out);
  EXPECT_TRUE(out.ends_with("\n[rank2] three\n"));
}

TEST(Lines, AnyPiecesGiveTheSame) {
  std::string text = "a\n\nbc\n" + std::string(LinePrefixer::kLongestLine, 'x') + "\nd\n" +
                     std::string(LinePrefixer::kLongestLine + 5, 'y') + "\n\nend";
  std::string whole;
  LinePrefixer at_once("> ");
  at_once.feed(text, whole);
  at_once.finish(whole);
  for (const std::size_t piece : {1u, 3u, 4096u, 65535u, 65536u}) {
    LinePrefixer lines("> ");
    std::string out;
    for (std::size_t i = 0; i < text.size(); i += piece) lines.feed(text.substr(i, piece), out);
    lines.finish(out);
    EXPECT_TRUE(out == whole) << "pieces of " << piece;
  }
}

TEST(Lines, ALongLineIsCut) {
  constexpr std::size_t kLongest = LinePrefixer::kLongestLine;
  LinePrefixer lines("> ");
  std::string out;
  lines.feed(std::string(kLongest, 'x'), out);
  EXPECT_EQ(out, "> " + std::string(kLongest, 'x') + "\n");  // not held back
  out.clear();
  lines.feed("\nnext\n", out);  // its newline has been written
  EXPECT_EQ(out, "> next\n");
  out.clear();
  lines.feed(std::string(kLongest + 2, 'y') + "\n", out);
  EXPECT_EQ(out, "> " + std::string(kLongest, 'y') + "\n> yy\n");
}

TEST(Lines, TheLastOneIsFinished) {
  LinePrefixer lines("> ");
  std::string out;
  lines.feed("no newline", out);
  EXPECT_EQ(out, "");
  lines.finish(out);
  EXPECT_EQ(out, "> no newline\n");
}

TEST(Lines, TheLastWithSomethingInItIsKept) {
  LinePrefixer lines("> ");
  std::string out;
  lines.feed("first\n[op] sizes differ\n \n\n", out);
  EXPECT_EQ(lines.last_line(), "[op] sizes differ");
  lines.feed(std::string(5000, 'z') + "\n", out);
  EXPECT_EQ(lines.last_line(), std::string(LinePrefixer::kKept, 'z'));
}

}  // namespace
}  // namespace sg::cli
