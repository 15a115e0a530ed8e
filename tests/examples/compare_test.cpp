// The verdict of --plan all, on results made by hand: what differs must be found and named.
#include "examples/cifar/compare.h"

#include <gtest/gtest.h>

#include <cmath>

#include "examples/common/progress.h"

namespace sg::cifar {
namespace {

Result result(const std::string& plan, int ranks, int accumulate, std::vector<double> losses) {
  Result r;
  for (const double loss : losses)
    r.steps.push_back({.loss = loss, .grad_norm = {}, .lr = 1e-3, .seconds = 1e-3});
  r.report.plan = plan;
  r.report.ranks = ranks;
  r.report.accumulate = accumulate;
  r.report.steps = std::ssize(r.steps);
  for (auto& bytes : r.report.bytes)
    bytes.predicted = bytes.measured =
        std::vector<std::int64_t>(static_cast<std::size_t>(ranks), 4096);
  r.report.traffic["all_gather"] = {
      .predicted = {5, 12345}, .measured = {{5, 12345}, {5, 12345}}, .even = {true, true}};
  r.weights = 77;
  return r;
}

bool says(const Comparison& c, const std::string& text) {
  return c.text.find(text) != std::string::npos;
}

TEST(Compare, EqualResultsAreEqual) {
  const std::vector<Result> results{result("ddp", 2, 1, {2.5, 2.25}),
                                    result("zero3", 2, 1, {2.5, 2.25})};
  const Comparison c = compare(results);
  EXPECT_TRUE(c.equal) << c.text;
  EXPECT_TRUE(says(c, "12,345")) << c.text;
  EXPECT_TRUE(says(c, "4,096")) << c.text;
  EXPECT_FALSE(says(c, "DIFFER")) << c.text;
}

TEST(Compare, OneBitOfALossIsFound) {
  std::vector<Result> results{result("ddp", 2, 1, {2.5, 2.25, 2}),
                              result("zero3", 2, 1, {2.5, 2.25, 2})};
  results[1].steps[1].loss = std::nextafter(2.25f, 3.0f);
  const Comparison c = compare(results);
  EXPECT_FALSE(c.equal);
  EXPECT_TRUE(says(
      c, "zero3: the losses differ from those of ddp from step 2 on: 40100001, expected 40100000"))
      << c.text;
}

TEST(Compare, AMissingStepIsADifference) {
  EXPECT_FALSE(compare({result("ddp", 2, 1, {2.5, 2.25}), result("zero1", 2, 1, {2.5})}).equal);
}

TEST(Compare, WeightsThatDifferAreFound) {
  std::vector<Result> results{result("ddp", 2, 1, {2.5}), result("zero3", 2, 1, {2.5})};
  results[1].weights = 78;
  const Comparison c = compare(results);
  EXPECT_FALSE(c.equal);
  EXPECT_TRUE(says(c, "zero3: the final weights differ from those of ddp")) << c.text;
}

TEST(Compare, AByteOnOneRankIsFound) {
  std::vector<Result> results{result("ddp", 2, 1, {2.5}), result("zero3", 2, 1, {2.5})};
  results[1].report.bytes[static_cast<std::size_t>(Kind::optimizer)].measured[1] += 1;
  const Comparison c = compare(results);
  EXPECT_FALSE(c.equal);
  EXPECT_TRUE(says(c, "zero3: memory or traffic is not as predicted")) << c.text;
  EXPECT_TRUE(says(c, "4,097")) << c.text;
}

TEST(Compare, TrafficThatDiffersIsFound) {
  std::vector<Result> results{result("ddp", 2, 1, {2.5}), result("zero3", 2, 1, {2.5})};
  results[0].report.traffic["all_gather"].measured[1].bytes -= 8;
  const Comparison c = compare(results);
  EXPECT_FALSE(c.equal);
  EXPECT_TRUE(says(c, "12,337")) << c.text;
  EXPECT_TRUE(says(c, "DIFFERS on rank 1")) << c.text;
}

TEST(Compare, FamiliesMayDifferFromEachOtherButNotWithin) {
  const auto four = [](double zero3) {
    return std::vector<Result>{result("ddp", 2, 2, {2.5}), result("zero1", 2, 2, {2.5}),
                               result("zero2", 2, 2, {2.501}), result("zero3", 2, 2, {zero3})};
  };
  const Comparison good = compare(four(2.501));
  EXPECT_TRUE(good.equal) << good.text;
  EXPECT_TRUE(says(
      good, "ddp sums micro-batches first, zero2 sums ranks first; first difference in step 1"))
      << good.text;
  EXPECT_FALSE(compare(four(2.5)).equal);
  // One rank, or one micro-batch a step: a single family.
  EXPECT_FALSE(compare({result("ddp", 1, 2, {2.5}), result("zero2", 1, 2, {2.501})}).equal);
  EXPECT_FALSE(compare({result("ddp", 2, 1, {2.5}), result("zero2", 2, 1, {2.501})}).equal);
}

TEST(Result, SecondsPerStepIsTheMedian) {
  Result r = result("ddp", 1, 1, {1, 1, 1});
  r.steps[0].seconds = 9;
  r.steps[1].seconds = 2;
  r.steps[2].seconds = 3;
  EXPECT_EQ(r.seconds_per_step(), 3);
  r.steps.pop_back();
  EXPECT_EQ(r.seconds_per_step(), 5.5);
  EXPECT_EQ(Result{}.seconds_per_step(), 0);
}

TEST(Progress, NumbersForPeople) {
  EXPECT_EQ(examples::thousands(0), "0");
  EXPECT_EQ(examples::thousands(999), "999");
  EXPECT_EQ(examples::thousands(1000), "1,000");
  EXPECT_EQ(examples::thousands(-1234567), "-1,234,567");
  EXPECT_EQ(examples::thousands(-100), "-100");
  EXPECT_EQ(examples::duration(7.2), "0:07");
  EXPECT_EQ(examples::duration(3723), "1:02:03");
}

}  // namespace
}  // namespace sg::cifar
