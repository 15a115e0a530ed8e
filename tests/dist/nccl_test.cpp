// Training by ranks with a GPU each, and which GPU is whose.
#include "tests/dist/nccl_support.h"

namespace sg::dist {
namespace {

class NcclBits : public testing::TestWithParam<TestNet> {};
INSTANTIATE_TEST_SUITE_P(All, NcclBits,
                         testing::Values(test_net("mlp"), test_net("convnet"),
                                         test_net("tied_embedding"), test_net("checkpointed"),
                                         test_net("mixed_dtypes")),
                         [](const auto& info) { return info.param.name; });

TEST_P(NcclBits, DeterministicSumsAreThoseOfThreads) {
  SKIP_WITHOUT_GPUS(1);
  for (const int ranks : {1, 2, 4}) {
    if (cuda::device_count() < ranks) break;
    for (const int accumulate : {1, 2}) {
      for (const char* plan : kPlanNames) {
        Training t{.plan = plan, .ranks = ranks, .accumulate = accumulate, .clip_norm = 0.3};
        SCOPED_TRACE(to_string(t));
        const Outcome shared = train(GetParam(), t);
        t.backend = Backend::nccl;
        const Outcome apart = train(GetParam(), t);
        EXPECT_EQ(apart.difference(shared), "");
        for (int r = 0; r < ranks; ++r) {
          const Report& report = apart.reports[static_cast<std::size_t>(r)];
          EXPECT_TRUE(report.matches()) << "rank " << r << "\n" << report.text();
          EXPECT_EQ(report.traffic.size(), shared.reports[0].traffic.size());
        }
      }
    }
  }
}

TEST_P(NcclBits, FastSumsAreClose) {
  SKIP_WITHOUT_GPUS(4);
  for (const char* plan : kPlanNames) {
    // Momentum: Adam's first steps are of equal size whatever the gradient's, and show nothing.
    Training t{.plan = plan, .ranks = 4, .accumulate = 2, .optimizer = "momentum"};
    SCOPED_TRACE(to_string(t));
    const Outcome shared = train(GetParam(), t);
    t.backend = Backend::nccl;
    t.deterministic = false;
    const Outcome apart = train(GetParam(), t);
    expect_close(apart, shared, families_apart(GetParam(), t));
    for (const Report& report : apart.reports) EXPECT_TRUE(report.matches()) << report.text();
  }
}

// ---- which GPU is whose

TEST(NcclGpus, MoreRanksThanGpusAreRefused) {
  SKIP_WITHOUT_GPUS(1);
  const int gpus = cuda::device_count();
  EXPECT_EQ(error_of([&] {
              launch_ranks(
                  gpus + 1, [](Rank&) {}, with_nccl());
            }),
            fmt::format("[launch] with NCCL each of the {} ranks needs a GPU of its own, and this "
                        "process sees {}; use at most {} ranks, or let all ranks share one GPU "
                        "(backend threads)",
                        gpus + 1, gpus, gpus));
}

TEST(NcclGpus, AProcessTakesTheGpuOfItsLocalRank) {
  SKIP_WITHOUT_GPUS(1);
  const int gpus = cuda::device_count();
  ProcessEnvironment e;
  e.launcher = "torchrun";
  e.rank = gpus + 3;
  e.world_size = 2 * gpus + 2;
  e.local_rank = gpus - 1;
  e.local_world_size = gpus;
  EXPECT_EQ(gpu_of(e, Backend::automatic), cuda_device(gpus - 1));
  EXPECT_HAS(error_of([&] { gpu_of(e, Backend::gloo); }),
             "and the backend gloo carries main memory alone; use auto or nccl");
  const std::string sees = fmt::format(
      "[launch] torchrun started {} processes, {} of them on this host, and process {} sees {} "
      "GPU{}: each needs one of its own, cuda:LOCAL_RANK. Start at most {} a host, let each "
      "process ",
      e.world_size, gpus + 1, e.rank, gpus, gpus == 1 ? "" : "s", gpus);
  e.local_world_size = gpus + 1;
  EXPECT_HAS(error_of([&] { gpu_of(e, Backend::automatic); }), sees);
  e.local_world_size = 1;  // not known by every launcher
  e.local_rank = gpus;
  EXPECT_HAS(error_of([&] { gpu_of(e, Backend::nccl); }), sees);
}

}  // namespace
}  // namespace sg::dist
