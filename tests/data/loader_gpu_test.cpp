// Batches on a GPU: what is staged and what has arrived is written again when its readers are done,
// and not before, and nobody on the CPU waits in between.
#include "data/loader.h"

#include <sched.h>

#include <atomic>
#include <chrono>
#include <future>
#include <thread>

#include "core/cuda/cuda.h"
#include "core/cuda/lanes.h"
#include "tests/data/support.h"

#if SG_STAND_IN
#include "core/cuda/context.h"
#endif

#if SG_CUDA
namespace sg::data {
namespace {

using std::chrono::milliseconds;

class GpuLoader : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (cuda::device_count() == 0) GTEST_SKIP() << "no GPU: " << cuda::why_none();
    rank.device = cuda_device(0);
  }
  Rank rank{0, 1, 1, 7};
};
INSTANTIATE_TEST_SUITE_P(Prefetch, GpuLoader, testing::Values(0, 1, 3));

struct Values {
  Tensor images, labels;
  explicit Values(const Batch& batch)
      : images(batch.images.clone()), labels(batch.labels.clone()) {}
  bool operator==(const Values& other) const {
    return images.to_vector<float>() == other.images.to_vector<float>() &&
           labels.to_vector<std::int64_t>() == other.labels.to_vector<std::int64_t>();
  }
};

std::vector<Values> on_cpu(const DatasetPtr& set, const LoaderOptions& options, int count) {
  Rank rank(0, 1, 1, 7);
  const RankScope scope(rank);
  Loader loader(set, options);
  std::vector<Values> all;
  for (int i = 0; i < count; ++i) all.emplace_back(loader.next());
  return all;
}

LoaderOptions options_of(int prefetch) {
  return {.batch_size = 12,
          .accumulate = 2,
          .rank = 0,
          .ranks = 1,
          .seed = 7,
          .augment = Augment::standard(),
          .prefetch = prefetch};
}

// Copies of what each batch holds, made by the GPU whenever it comes to them; `before` may make a
// lane late.
template <class F>
void expect_values_of_the_cpu(const DatasetPtr& set, int prefetch, int count, F&& before) {
  const LoaderOptions options = options_of(prefetch);
  Loader loader(set, options);
  std::vector<Values> all;
  for (int i = 0; i < count; ++i) {
    before(i);
    all.emplace_back(loader.next());
  }
  const std::vector<Values> expected = on_cpu(set, options, count);
  for (std::size_t i = 0; i < all.size(); ++i) {
    EXPECT_TRUE(all[i].images.is_cuda());
    EXPECT_TRUE(all[i] == expected[i]) << "batch " << i;
  }
}

TEST_P(GpuLoader, HasTheValuesOfTheCpu) {
  const RankScope scope(rank);
  expect_values_of_the_cpu(numbered_set(150, 12, 8), GetParam(), 60, [](int) {});
}

TEST_P(GpuLoader, KeptTensorsKeepTheirValues) {
  const RankScope scope(rank);
  const auto set = numbered_set(150, 12, 8);
  const LoaderOptions options = options_of(GetParam());
  const std::vector<Values> expected = on_cpu(set, options, 30);
  std::vector<Tensor> images;
  {
    Loader loader(set, options);
    for (int i = 0; i < 30; ++i) {
      const Batch& batch = loader.next();
      if (i % 3 == 0) images.push_back(batch.images);
      if (i == 10) loader.seek(loader.position());  // what is on its way is written once more
    }
  }
  for (std::size_t i = 0; i < images.size(); ++i)
    EXPECT_EQ(images[i].to_vector<float>(), expected[3 * i].images.to_vector<float>()) << i;
}

// The caller and all threads it starts share one processor, so that a new thread begins late.
class OneProcessor {
 public:
  OneProcessor() {
    CPU_ZERO(&before_);
    EXPECT_EQ(sched_getaffinity(0, sizeof before_, &before_), 0);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<std::size_t>(sched_getcpu()), &one);
    EXPECT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  }
  ~OneProcessor() { EXPECT_EQ(sched_setaffinity(0, sizeof before_, &before_), 0); }
  OneProcessor(const OneProcessor&) = delete;
  OneProcessor& operator=(const OneProcessor&) = delete;

 private:
  cpu_set_t before_;
};

// ThreadSanitizer sees a background thread that reads what next() replaces.
TEST_P(GpuLoader, TensorsMayBeKeptBeforeTheBackgroundThreadBegins) {
  const RankScope scope(rank);
  const auto set = numbered_set(60, 12, 8);
  const std::vector<Values> expected = on_cpu(set, options_of(GetParam()), 3);
  for (int repeat = 0; repeat < 20; ++repeat) {
    Loader loader(set, options_of(GetParam()));
    std::vector<Tensor> images;
    {
      const OneProcessor here;
      for (int i = 0; i < 3; ++i) images.push_back(loader.next().images);
    }
    for (std::size_t i = 0; i < images.size(); ++i)
      EXPECT_EQ(images[i].to_vector<float>(), expected[i].images.to_vector<float>()) << i;
  }
}

TEST_P(GpuLoader, CanBeDestroyedWhileCopiesAreUnderWay) {
  const RankScope scope(rank);
  const auto set = numbered_set(60, 12, 8);
  for (int reads = 0; reads < 6; ++reads) {
    Loader loader(set, options_of(GetParam()));
    for (int i = 0; i < reads; ++i) loader.next();
  }
}

TEST_P(GpuLoader, BooksWhatIsStagedInTheHostsTier) {
  const RankScope scope(rank);
  const Ledger& ledger = rank.ledger();
  {
    Loader loader(numbered_set(60, 12, 8), options_of(GetParam()));
    const std::int64_t one = 6 * (12 * 8 * 3 * 4 + 8);  // 6 images of f32, 6 labels
    for (int i = 0; i < 9; ++i) loader.next();
    for (const Tier tier : {Tier::device, Tier::host}) {
      EXPECT_EQ(ledger.live(Kind::buffers, tier), one * (GetParam() + 1)) << name_of(tier);
      EXPECT_EQ(ledger.peak_total(tier), one * (GetParam() + 1)) << name_of(tier);
    }
  }
  EXPECT_EQ(ledger.live_total(Tier::device) + ledger.live_total(Tier::host), 0);
  EXPECT_GT(rank.memory->pinned.cached_bytes(), 0) << "pinned memory is kept for the next loader";
}

TEST_P(GpuLoader, PreparesAheadWithOneComputeThreadARank) {
  Rank busy(0, 1, available_cores(), 7);
  busy.device = cuda_device(0);
  const RankScope scope(busy);
  LoaderOptions options = options_of(LoaderOptions::kAuto);
  const Loader loader(numbered_set(60, 12, 8), options);
  EXPECT_EQ(busy.ledger().live(Kind::buffers, Tier::host) > 2 * 6 * 12 * 8 * 3 * 4,
            available_cores() > 1);
}

#if SG_STAND_IN

void make_late(cudaStream_t stream) {
  cuda::fake::enqueue(stream, [] { std::this_thread::sleep_for(milliseconds(2)); });
}

TEST_P(GpuLoader, WhatIsReadLateIsNotOverwritten) {
  const RankScope scope(rank);
  cuda::Context* const gpu = cuda::current(rank.device);
  expect_values_of_the_cpu(numbered_set(150, 12, 8), GetParam(), 30,
                           [&](int) { make_late(gpu->compute()); });
}

TEST_P(GpuLoader, WhatIsCopiedLateIsNotRefilled) {
  const RankScope scope(rank);
  cuda::Context* const gpu = cuda::current(rank.device);
  expect_values_of_the_cpu(numbered_set(150, 12, 8), GetParam(), 30,
                           [&](int) { make_late(gpu->copies_in()); });
}

TEST(GpuLoaderAhead, BatchesArriveWhileTheGpuComputes) {
  if (cuda::device_count() == 0) GTEST_SKIP() << "no GPU: " << cuda::why_none();
  if (!cuda::fake::threaded()) GTEST_SKIP() << "work runs as it is queued: nothing is late";
  Rank rank(0, 1, 1, 7);
  rank.device = cuda_device(0);
  const RankScope scope(rank);
  cuda::Context* const gpu = cuda::current(rank.device);
  std::atomic<int> filled{0};
  LoaderOptions options = options_of(2);
  options.transform = [&](std::span<std::uint8_t>, std::int64_t, std::int64_t) { ++filled; };
  Loader loader(numbered_set(150, 12, 8), options);
  loader.next();
  std::promise<void> step_ends;
  cuda::fake::enqueue(gpu->compute(), [end = step_ends.get_future().share()] { end.wait(); });
  // The two batches after this one are filled, and their copies queued, during the step ...
  for (int i = 0; i < 20'000 && filled < 3 * 6; ++i) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_EQ(filled, 3 * 6);
  std::this_thread::sleep_for(milliseconds(20));
  // ... and so they are there before it ends, and are handed out without waiting for its end.
  cuda::wait(*cuda::mark(*gpu, cuda::Lane::copies_in));
  const Tensor one = loader.next().images.clone(), two = loader.next().images.clone();
  step_ends.set_value();
  const auto expected = on_cpu(numbered_set(150, 12, 8), options_of(0), 3);
  EXPECT_EQ(one.to_vector<float>(), expected[1].images.to_vector<float>());
  EXPECT_EQ(two.to_vector<float>(), expected[2].images.to_vector<float>());
}

#endif

}  // namespace
}  // namespace sg::data
#endif
