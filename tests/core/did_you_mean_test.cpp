#include "core/did_you_mean.h"

#include <gtest/gtest.h>

namespace sg {
namespace {

TEST(DidYouMean, NamesTheFirstOfTheNearest) {
  const std::string_view choices[] = {"ddp", "zero1", "zero2", "zero3"};
  EXPECT_EQ(did_you_mean("zeor3", choices), "; did you mean zero3?");
  EXPECT_EQ(did_you_mean("zero", choices), "; did you mean zero1?");
  EXPECT_EQ(did_you_mean("DDP", choices), "") << "all of it would have to change";
  EXPECT_EQ(did_you_mean("pipeline", choices), "");
  EXPECT_EQ(did_you_mean("", choices), "");
  EXPECT_EQ(did_you_mean("ddp", {}), "");
}

}  // namespace
}  // namespace sg
