// The programs on a GPU: the suites run them on the stand-in where the build has it.
#include <cstdlib>

#include "core/cuda/cuda.h"
#include "tests/examples/support.h"

namespace sg::test {
namespace {

class GpuPrograms : public testing::Test {
 protected:
  void SetUp() override {
#if SG_STAND_IN
    ::setenv("SHARDGRAD_FAKE_CUDA", "1", 1);  // for the programs that are started
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

TEST_F(GpuPrograms, EveryPlanHasEqualBitsAndBytes) {
  const std::string common = "--device cuda --plan all --steps 4 --no-eval ";
  for (const char* options : {"--ranks 1", "--ranks 4", "--ranks 2 --accumulate 2 --clip-norm 1",
                              "--ranks 2 --dtype bf16 --checkpoint-activations"}) {
    const Outcome outcome = run("cifar", common + "--data " + small_data() + " " + options);
    EXPECT_EQ(outcome.status, 0) << options << outcome.out << outcome.err;
  }
}

TEST_F(GpuPrograms, GraphsHaveTheBitsOfSingleLaunches) {
  const std::string common = "--device cuda --plan zero2 --steps 6 --no-eval --schedule cosine ";
  for (const char* options : {"--accumulate 3", "--net resnet20 --batch-size 8 --dtype bf16"}) {
    const std::string bits = train(common + options).bits("zero2");
    EXPECT_EQ(train(common + options + " --no-graphs").bits("zero2"), bits) << options;
  }
}

TEST_F(GpuPrograms, SettingsNameTheDeviceAndWhatIsCaptured) {
  const std::string common = "--device cuda --steps 0 --no-eval --data " + small_data();
  EXPECT_NE(run("cifar", common).out.find("cuda; CUDA graphs: micro-batches and updates"),
            std::string::npos);
  EXPECT_NE(run("cifar", common + " --ranks 2").out.find("cuda; CUDA graphs: updates (several"),
            std::string::npos);
  EXPECT_NE(run("cifar", common + " --no-graphs").out.find("cuda; CUDA graphs: none"),
            std::string::npos);
}

TEST_F(GpuPrograms, LinearLearnsThere) {
  const Outcome outcome = run("linear", "--device cuda --ranks 2 --plan zero3 --steps 3");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("step  3  loss"), std::string::npos) << outcome.out;
}

}  // namespace
}  // namespace sg::test
