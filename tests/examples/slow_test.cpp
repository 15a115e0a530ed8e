// The matrix of what must be equal: ranks, nets, accumulation, clipping, recomputation. A few steps
// of small batches each.
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>

#include "core/rank.h"
#include "tests/examples/support.h"

namespace sg::test {
namespace {

namespace fs = std::filesystem;

struct Setting {
  std::string net;
  int ranks, accumulate;
  std::string more;
};

std::string name_of(const testing::TestParamInfo<Setting>& info) {
  const Setting& s = info.param;
  std::string name = fmt::format("{}_{}x{}", s.net, s.ranks, s.accumulate);
  for (const char c : s.more)
    if (c == ' ' || std::isalnum(static_cast<unsigned char>(c))) name += c == ' ' ? '_' : c;
  return name;
}

class SlowMatrix : public testing::TestWithParam<Setting> {};

// Status 0 is the claim: the program itself compares losses, weights, bytes and traffic of all
// plans. The losses are compared here once more, from the metrics.
TEST_P(SlowMatrix, PlansAreEqual) {
  const Setting& s = GetParam();
  const int batch = (s.net == "tutorial" ? 4 : 2) * s.ranks * s.accumulate;
  const MetricsFile file = train(fmt::format(
      "--plan all --net {} --ranks {} --accumulate {} --batch-size {} --steps 3 --threads 1 "
      "--no-eval {}",
      s.net, s.ranks, s.accumulate, batch, s.more));
  ASSERT_EQ(file.summaries.size(), 4u);
  ASSERT_EQ(file.steps.size(), 12u);
  EXPECT_EQ(file.bits("zero1"), file.bits("ddp"));
  EXPECT_EQ(file.bits("zero3"), file.bits("zero2"));
  if (s.ranks == 1 || s.accumulate == 1) {
    EXPECT_EQ(file.bits("zero2"), file.bits("ddp"));
  }
}

std::vector<Setting> settings() {
  const std::string variants[] = {"--clip-norm 0.1", "--checkpoint-activations",
                                  "--clip-norm 0.1 --checkpoint-activations --augment"};
  std::vector<Setting> all;
  std::size_t next = 0;
  for (const int accumulate : {1, 2})
    for (const int ranks : {1, 2, 3, 4, 8})
      for (const char* net : {"tutorial", "mlp", "vgg", "resnet20"}) {
        all.push_back({net, ranks, accumulate, ""});
        all.push_back({net, ranks, accumulate, variants[next++ % 3]});
      }
  for (const int ranks : {2, 8}) {
    all.push_back({"tutorial", ranks, 1, "--executor thread"});
    all.push_back({"tutorial", ranks, 2, "--no-prefetch --optimizer adamw"});
    all.push_back({"tutorial", ranks, 1, "--optimizer sgd --momentum 0.9 --schedule cosine"});
    all.push_back({"tutorial", ranks, 1, "--dtype f64"});
  }
  for (const char* net : {"tutorial", "mlp", "vgg", "resnet20"})
    all.push_back({net, 2, 1, "--threads 2"});
  return all;
}

INSTANTIATE_TEST_SUITE_P(All, SlowMatrix, testing::ValuesIn(settings()), name_of);

/// Slices are micro-batches: the same net on N ranks x A must equal one rank x N A, for every net
/// without batch norm's running buffers in the loss (training mode uses the micro-batch's
/// statistics, so resnet20 too).
class SlowSlices : public testing::TestWithParam<std::string> {};

TEST_P(SlowSlices, RanksAndMicroBatchesAreExchangeable) {
  const std::string common = fmt::format(
      "--net {} --threads 1 --batch-size 16 --steps 3 --no-eval --clip-norm 0.2 ", GetParam());
  const std::string one = train(common + "--ranks 1 --accumulate 4").bits("ddp");
  for (const char* plan : {"ddp", "zero1", "zero2", "zero3"})
    EXPECT_EQ(train(fmt::format("{}--ranks 4 --plan {}", common, plan)).bits(plan), one) << plan;
  for (const char* plan : {"zero2", "zero3"})
    EXPECT_EQ(train(fmt::format("{}--ranks 2 --accumulate 2 --plan {}", common, plan)).bits(plan),
              one)
        << plan;
}

TEST_P(SlowSlices, RunsRepeat) {
  const std::string options =
      fmt::format("--net {} --ranks 2 --threads 2 --plan zero3 --batch-size 16 --steps 3 --augment",
                  GetParam());
  const MetricsFile first = train(options), second = train(options);
  EXPECT_EQ(first.bits("zero3"), second.bits("zero3"));
  EXPECT_EQ(first.summaries.at(0).at("weights_digest"),
            second.summaries.at(0).at("weights_digest"));
  EXPECT_EQ(first.summaries.at(0).at("test_accuracy"), second.summaries.at(0).at("test_accuracy"));
}

// Runs as long as README's: buckets, rings and moments that hardly move have their effects late.
TEST(SlowRuns, TwoHundredStepsAreEqualUnderEveryPlan) {
  const fs::path file = scratch("long.jsonl");
  const Outcome outcome =
      run("cifar", "--plan all --ranks 4 --steps 200 --no-eval --metrics " + file.string());
  ASSERT_EQ(outcome.status, 0) << outcome.out << outcome.err;
  const MetricsFile metrics = read_metrics(file);
  ASSERT_EQ(metrics.steps.size(), 800u);
  for (const char* plan : {"zero1", "zero2", "zero3"})
    EXPECT_EQ(metrics.bits(plan), metrics.bits("ddp")) << plan;
}

double accuracy_of(const std::string& options) {
  const fs::path file = scratch("accuracy.jsonl");
  const Outcome outcome = run("cifar", options + " --metrics " + file.string());
  EXPECT_EQ(outcome.status, 0) << outcome.out << outcome.err;
  return read_metrics(file).summaries.at(0).at("test_accuracy").get<double>();
}

// Why this build or machine is not held to a time; empty: it is.
std::string why_no_time() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return "a sanitizer slows this build down";
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  return "a sanitizer slows this build down";
#endif
#endif
#ifndef __OPTIMIZE__
  return "this build is not optimized";
#endif
  const int cores = available_cores();
  return cores >= 2 ? "" : fmt::format("{} core, and the time is for 2", cores);
}

TEST(SlowRuns, TheTutorialNetLearnsTheSyntheticData) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_GE(accuracy_of("--ranks 2 --plan zero3 --epochs 3"), 0.90);
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
  const std::string why = why_no_time();
  if (why.empty()) {
    EXPECT_LT(time.count(), 120) << "seconds";
  } else {
    fmt::print("training took {:.1f} s, not held to 120 s: {}\n", time.count(), why);
  }
}

TEST(SlowRuns, TheTutorialNetLearnsCifar10) {
  const char* data = std::getenv("SHARDGRAD_DATA");
  if (data == nullptr) GTEST_SKIP() << "SHARDGRAD_DATA is not set; see README";
  EXPECT_GE(accuracy_of(fmt::format("--data {}/cifar-10-batches-bin --ranks 2 --plan zero3 "
                                    "--batch-size 32 --epochs 5 --threads 1",
                                    data)),
            0.58);
}

INSTANTIATE_TEST_SUITE_P(All, SlowSlices, testing::Values("tutorial", "mlp", "vgg", "resnet20"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace sg::test
