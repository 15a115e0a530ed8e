// The programs on a GPU, or on its stand-in.
#include <fmt/format.h>

#include <cstdlib>

#include "core/cuda/cuda.h"
#include "tests/examples/support.h"

namespace sg::test {
namespace {

// For the programs that are started meanwhile: this process has looked for GPUs already.
class GpuPrograms : public testing::Test {
 protected:
  void SetUp() override {
#if SG_STAND_IN
    ::setenv("SHARDGRAD_FAKE_CUDA", "1", 1);
#else
    if (cuda::device_count() == 0) GTEST_SKIP() << "no GPU: " << cuda::why_none();
#endif
  }
  void TearDown() override {
#if SG_STAND_IN
    ::unsetenv("SHARDGRAD_FAKE_CUDA");
#endif
  }
};

TEST_F(GpuPrograms, CifarHasEqualBitsUnderEveryPlan) {
  for (const char* options :
       {"--ranks 1 --accumulate 2", "--ranks 2 --clip-norm 0.1", "--ranks 2 --dtype bf16"}) {
    const MetricsFile file = train(fmt::format(
        "--device cuda --plan all --batch-size 8 --steps 3 --no-eval --augment {}", options));
    ASSERT_EQ(file.summaries.size(), 4u);
    EXPECT_NE(file.bits("ddp"), "");
    for (const char* plan : {"zero1", "zero2", "zero3"})
      EXPECT_EQ(file.bits(plan), file.bits("ddp")) << plan << " " << options;
  }
}

TEST_F(GpuPrograms, CifarTestsAndReportsTheCard) {
  const Outcome outcome =
      run("cifar", fmt::format("--device cuda --ranks 2 --plan zero3 --data {} --batch-size 8 "
                               "--steps 2",
                               small_data()));
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  for (const char* text :
       {"\ndevice      cuda; CUDA graphs: updates", "test accuracy: ", "in use on cuda:0, now",
        "ledger of 2 ranks", "cuBLAS workspaces", "pool slack"})
    EXPECT_NE(outcome.out.find(text), std::string::npos) << text << "\n" << outcome.out;
}

TEST_F(GpuPrograms, GraphsHaveTheBitsOfSingleLaunches) {
  const std::string common = "--device cuda --plan zero2 --steps 4 --no-eval --schedule cosine ";
  for (const char* options : {"--accumulate 3", "--net resnet20 --batch-size 1 --dtype bf16"}) {
    const std::string bits = train(common + options).bits("zero2");
    EXPECT_NE(bits, "");
    EXPECT_EQ(train(common + options + " --no-graphs").bits("zero2"), bits) << options;
  }
}

TEST_F(GpuPrograms, SettingsNameWhatIsCaptured) {
  const std::string common = "--device cuda --steps 0 --no-eval --data " + small_data();
  const auto says = [&](const std::string& options, const std::string& text) {
    EXPECT_NE(run("cifar", common + options).out.find("cuda; CUDA graphs: " + text),
              std::string::npos)
        << options;
  };
  says("", "micro-batches and updates");
  says(" --ranks 2", "updates (several ranks wait for each other)");
  says(" --no-graphs", "none");
#if SG_NCCL
  ::setenv("SHARDGRAD_BACKEND", "nccl", 1);
  says("", "updates (NCCL's collectives are watched from the CPU)");
  ::unsetenv("SHARDGRAD_BACKEND");
#endif
}

TEST_F(GpuPrograms, LinearLearns) {
  const auto losses = [](const std::string& options) {
    const Outcome outcome = run("linear", options + " --device cuda");
    EXPECT_EQ(outcome.status, 0) << options << outcome.err;
    return outcome.out.substr(0, outcome.out.find("\n\n"));
  };
  const std::string four = losses("--ranks 4 --plan ddp");
  EXPECT_NE(four.find("loss"), std::string::npos);
  EXPECT_EQ(losses("--ranks 4 --plan zero3"), four);
  EXPECT_EQ(losses("--ranks 1 --accumulate 4"), four);
}

TEST(WithoutGpus, ProgramsSayWhyThereIsNone) {
  if (cuda::device_count() > 0) GTEST_SKIP() << "there is a GPU";
  for (const char* program : {"cifar", "linear"}) {
    const Outcome outcome = run(program, "--device cuda");
    EXPECT_EQ(outcome.status, 2);
    EXPECT_NE(outcome.err.find(fmt::format("--device cuda: there is no GPU to use: {}; use "
                                           "--device cpu",
                                           cuda::why_none())),
              std::string::npos)
        << outcome.err;
  }
}

}  // namespace
}  // namespace sg::test
