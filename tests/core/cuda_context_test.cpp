// What a rank has on its GPU, and what is left of it when something fails.
#include "core/cuda/cuda.h"
#include "core/cuda/lanes.h"

#include <gtest/gtest.h>

#include "core/ops.h"
#include "core/tensor.h"
#include "tests/support/testing.h"

#if SG_STAND_IN
#include <cuda_runtime_api.h>
#endif

namespace sg {
namespace {

using test::error_of;

class GpuContext : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda::device_count() == 0) GTEST_SKIP() << "no GPU: " << cuda::why_none();
  }
  static constexpr Device kGpu = cuda_device(0);
};

TEST_F(GpuContext, ADeviceThatIsNotThereIsNamed) {
  Rank rank;
  const RankScope scope(rank);
  EXPECT_EQ(error_of([] { Tensor::empty({1}, DType::f32, cuda_device(77)); }),
            fmt::format("[device] there is no cuda:77; this process sees {} GPU{} "
                        "(CUDA_VISIBLE_DEVICES)",
                        cuda::device_count(), cuda::device_count() == 1 ? "" : "s"));
  EXPECT_EQ(rank.ledger().live_total(), 0);
}

#if SG_CUDA
TEST_F(GpuContext, MainMemoryIsNoGpu) {
  Rank rank;
  const RankScope scope(rank);
  EXPECT_EQ(error_of([] { cuda::current(kCpu); }), "[device] cpu is no GPU");
}
#endif

// A rank on a GPU has three kinds of memory; what is copied from pinned memory may be overwritten
// when the copy has returned, as any other.
TEST_F(GpuContext, MainMemoryIsBookedInTheHostsTier) {
  Rank rank;
  rank.device = kGpu;
  const RankScope scope(rank);
  const Ledger& ledger = rank.ledger();
  const void* place = nullptr;
  {
    const Tensor here = Tensor::empty({100}, DType::f32, kCpu), there = Tensor::empty({10});
    const Tensor pinned = Tensor::empty_pinned({3, 50}, DType::f64);
    EXPECT_TRUE(pinned.storage()->pinned());
    EXPECT_EQ(pinned.device(), kCpu);
    EXPECT_EQ(ledger.live_total(Tier::device), 40);
    EXPECT_EQ(ledger.live_total(Tier::host), 400 + 1200);
    pinned.storage()->set_kind(Kind::buffers);
    EXPECT_EQ(ledger.live(Kind::buffers, Tier::host), 1200);
    std::vector<Tensor> copies;
    for (int i = 0; i < 20; ++i) {
      pinned.fill(i);
      copies.push_back(pinned.to(kGpu));
    }
    for (int i = 0; i < 20; ++i)
      EXPECT_EQ(copies[static_cast<std::size_t>(i)].to_doubles(), std::vector<double>(150, i));
    place = pinned.raw_data();
  }
  EXPECT_EQ(ledger.live_total(Tier::device) + ledger.live_total(Tier::host), 0);
  EXPECT_EQ(Tensor::empty_pinned({150}, DType::f64).raw_data(), place) << "it is kept";
}

TEST(PinnedMemory, IsForRanksThatWorkOnAGpu) {
  Rank rank;
  const RankScope scope(rank);
#if SG_CUDA
  EXPECT_EQ(error_of([] { Tensor::empty_pinned({4}); }),
            "[memory] pinned memory is for ranks that work on a GPU, rank 0 is on cpu");
#else
  EXPECT_EQ(error_of([] { Tensor::empty_pinned({4}); }),
            "[memory] pinned memory is for GPUs: " + cuda::why_none());
#endif
  EXPECT_EQ(rank.ledger().live_total(Tier::host), 0);
  EXPECT_EQ(error_of([] { Tensor::empty_pinned({-4}); }), "[tensor] negative size in shape [-4]");
}

TEST_F(GpuContext, OutOfMemoryNamesWhatTheCardHas) {
  Rank rank;
  rank.device = kGpu;
  const RankScope scope(rank);
  const Tensor some = Tensor::zeros({1000});
  const std::string text = error_of([] { Tensor::empty({1LL << 50}); });
  EXPECT_EQ(text.rfind("[memory] rank 0 asked for 4503599627370496 bytes on cuda:0, which has ", 0),
            0u)
      << text;
  EXPECT_NE(text.find("use a smaller batch, more ranks or a higher ZeRO stage"), std::string::npos);
  EXPECT_EQ(some.to_doubles()[999], 0) << "the rank goes on";
}

// What the driver says beside what is booked.
TEST_F(GpuContext, MemoryInfoTellsThePoolFromTheRest) {
  Rank rank;
  rank.device = kGpu;
  const RankScope scope(rank);
  const std::int64_t unused = cuda::memory_info(kGpu).pool_used;
  const Tensor a = Tensor::zeros({1000, 1000});
  cuda::synchronize();
  const cuda::MemoryInfo info = cuda::memory_info(kGpu);
  EXPECT_GE(info.pool_used, unused + a.bytes());
  EXPECT_GE(info.pool_reserved, info.pool_used);
  EXPECT_GT(info.total, info.free);
  EXPECT_GT(info.before, 0);
  EXPECT_EQ(info.workspace, 0);
  const Tensor small = Tensor::zeros({8, 8});
  ops::matmul(small, small);
  EXPECT_GT(cuda::memory_info(kGpu).workspace, 0);
}

#if SG_STAND_IN
TEST_F(GpuContext, NoMorePinnedMemoryIsAnErrorThatSaysSo) {
  Rank rank;
  rank.device = kGpu;
  const RankScope scope(rank);
  cuda::fake::fail_call("cudaHostAlloc", 1, cudaErrorMemoryAllocation);
  EXPECT_EQ(error_of([] { Tensor::empty_pinned({1000}); }),
            "[memory] rank 0 asked for 4096 bytes of pinned main memory, and the system gives no "
            "more; use a smaller batch or less prefetch, or free memory of the host");
  cuda::fake::fail_call("cudaHostAlloc", 1, cudaErrorInvalidValue);
  EXPECT_EQ(error_of([] { Tensor::empty_pinned({1000}); }),
            "[memory] cudaHostAlloc on cuda:0, rank 0: an error of the stand-in (cudaError)");
  EXPECT_EQ(rank.ledger().live_total(Tier::host), 0);
}

TEST_F(GpuContext, OneThatCannotBeMadeLeavesNothing) {
  struct Case {
    const char* call;
    int nth;
    const char* named;  // in the error
  };
  for (const auto& [call, nth, named] : {Case{"cudaStreamCreateWithFlags", 1, "cudaStreamCreate"},
                                         Case{"cudaStreamCreateWithFlags", 2, "cudaStreamCreate"},
                                         Case{"cudaStreamCreateWithFlags", 3, "cudaStreamCreate"},
                                         Case{"cudaMallocAsync", 1, "cudaMallocAsync"},
                                         Case{"cudaMemsetAsync", 1, "cudaMemsetAsync"}}) {
    SCOPED_TRACE(fmt::format("{} {}", call, nth));
    const int streams = cuda::fake::streams();
    const std::int64_t used = cuda::memory_info(kGpu).pool_used;
    Rank rank;
    const RankScope scope(rank);
    cuda::fake::fail_call(call, nth, cudaErrorInvalidValue);
    const std::string text = error_of([] { Tensor::zeros({5}, DType::f32, kGpu); });
    EXPECT_NE(text.find(fmt::format("{} on cuda:0, rank 0: ", named)), std::string::npos) << text;
    EXPECT_EQ(cuda::fake::streams(), streams);
    EXPECT_EQ(cuda::memory_info(kGpu).pool_used, used);
    EXPECT_EQ(rank.ledger().live_total(), 0);
    EXPECT_EQ(Tensor::zeros({5}, DType::f32, kGpu).to_doubles(), std::vector<double>(5, 0.0))
        << "a further attempt";
  }
}
#endif

}  // namespace
}  // namespace sg
