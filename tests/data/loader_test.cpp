#include "data/loader.h"

#include <atomic>
#include <cstring>
#include <set>
#include <thread>

#include "core/cuda/cuda.h"
#include "support.h"

namespace sg::data {
namespace {

using std::chrono::milliseconds;

/// What a micro-batch holds, for comparison.
struct Content {
  std::vector<float> images;
  std::vector<std::int64_t> labels;
  Position position;
  std::int64_t first, valid;
  bool operator==(const Content&) const = default;
};

Content content(const Batch& batch) {
  return {batch.images.to_vector<float>(), batch.labels.to_vector<std::int64_t>(), batch.position,
          batch.first, batch.valid};
}

/// The sample that row `i` of a batch of numbered_set came from.
std::int64_t number_of(const Batch& batch, std::int64_t i) {
  const Tensor images = batch.images.to(kCpu);
  const float* row = images.data<float>() + i * (images.numel() / batch.size());
  std::int64_t number = 0;
  for (int b = 0; b < 4; ++b)
    number += std::int64_t{static_cast<int>((row[b] + 1) * 127.5f + 0.5f)} << (8 * b);
  return number;
}

std::vector<std::int64_t> numbers_of(const Batch& batch) {
  std::vector<std::int64_t> numbers;
  for (std::int64_t i = 0; i < batch.size(); ++i) numbers.push_back(number_of(batch, i));
  return numbers;
}

LoaderOptions small(int prefetch) {
  return {
      .batch_size = 12, .accumulate = 2, .rank = 1, .ranks = 2, .seed = 5, .prefetch = prefetch};
}

class LoaderDepth : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Prefetch, LoaderDepth, ::testing::Values(0, 1, 2, 5));

TEST_P(LoaderDepth, GivesTheSamplersSlicesNormalised) {
  const auto set = numbered_set(300, 4, 5);
  Loader loader(set, small(GetParam()));
  EXPECT_EQ(loader.steps_per_epoch(), 25);
  EXPECT_EQ(loader.batches_per_epoch(), 50);
  for (std::int64_t epoch = 0; epoch < 2; ++epoch) {
    const auto order = epoch_order(300, 5, epoch, true);
    for (std::int64_t step = 0; step < 25; ++step)
      for (int micro = 0; micro < 2; ++micro) {
        EXPECT_EQ(loader.position(), (Position{epoch, step, micro}));
        const Batch& batch = loader.next();
        EXPECT_EQ(batch.position, (Position{epoch, step, micro}));
        EXPECT_EQ(batch.first, (micro * 2 + 1) * 3);
        EXPECT_EQ(batch.valid, 3);
        EXPECT_EQ(batch.images.shape(), (Shape{3, 3, 4, 5}));
        EXPECT_EQ(batch.images.dtype(), DType::f32);
        EXPECT_EQ(batch.labels.shape(), (Shape{3}));
        EXPECT_EQ(batch.labels.dtype(), DType::i64);
        for (std::int64_t i = 0; i < 3; ++i) {
          const std::int64_t sample = order[static_cast<std::size_t>(step * 12 + batch.first + i)];
          EXPECT_EQ(batch.labels.to(kCpu).data<std::int64_t>()[i], sample % 10);
          const auto image = set->image(sample);
          const Tensor images = batch.images.to(kCpu);
          const float* row = images.data<float>() + i * 60;
          for (std::size_t j = 0; j < image.size(); ++j)
            ASSERT_EQ(row[j], (static_cast<float>(image[j]) / 255.0f - 0.5f) / 0.5f);
        }
      }
  }
}

TEST_P(LoaderDepth, DoesNotChangeTheNumbersAugmentedOrNot) {
  const auto set = numbered_set(50);
  for (const Augment& augment : {Augment{}, Augment::standard()}) {
    LoaderOptions inline_options = small(0), options = small(GetParam());
    inline_options.augment = options.augment = augment;
    Loader expected(set, inline_options), loader(set, options);
    for (int i = 0; i < 20; ++i) EXPECT_EQ(content(loader.next()), content(expected.next()));
  }
}

TEST_P(LoaderDepth, ResumesAnywhere) {
  const auto set = numbered_set(100, 4, 4);
  LoaderOptions options = small(GetParam());
  options.augment = {.flip = true, .crop = 1};
  Loader whole(set, options);
  std::vector<Content> contents;
  for (int i = 0; i < 40; ++i) contents.push_back(content(whole.next()));
  Loader loader(set, options);
  const auto index_of = [&](const Position& p) {
    return static_cast<std::size_t>((p.epoch * loader.steps_per_epoch() + p.step) * 2 + p.micro);
  };
  for (const Position& p : {Position{1, 3, 0}, {0, 7, 1}, {2, 0, 0}, {0, 0, 0}, {0, 0, 1}}) {
    loader.seek(p);
    EXPECT_EQ(loader.position(), p);
    for (std::size_t i = 0; i < 4; ++i)
      EXPECT_EQ(content(loader.next()), contents[index_of(p) + i]);
  }
}

TEST_P(LoaderDepth, EpochIsARange) {
  const auto set = numbered_set(30, 4, 4);
  Loader loader(set, small(GetParam()));
  for (const std::int64_t epoch : {0, 1, 5}) {  // the last one is not the one that follows
    std::int64_t count = 0;
    for (const Batch& batch : loader.epoch(epoch)) {
      EXPECT_EQ(batch.position, (Position{epoch, count / 2, static_cast<int>(count % 2)}));
      ++count;
    }
    EXPECT_EQ(count, loader.batches_per_epoch());
    EXPECT_EQ(loader.position(), (Position{epoch + 1, 0, 0}));
  }
  for (const Batch& batch : loader.epoch(2)) {  // left early, and taken up again
    if (batch.position.step == 1) break;
  }
  std::vector<Position> rest;
  for (const Batch& batch : loader.epoch(2, 1)) rest.push_back(batch.position);
  EXPECT_EQ(rest, (std::vector<Position>{{2, 1, 0}, {2, 1, 1}}));
  // A range made early begins where it says, whatever was read in between.
  const auto later = loader.epoch(3);
  loader.seek({0, 1, 0});
  loader.next();
  EXPECT_EQ((*later.begin()).position, (Position{3, 0, 0}));
}

TEST_P(LoaderDepth, BatchUnpacksIntoImagesAndLabels) {
  Loader loader(numbered_set(30, 4, 4), small(GetParam()));
  int count = 0;
  for (auto [images, labels] : loader.epoch(0)) {
    EXPECT_EQ(images.size(0), labels.size(0));
    ++count;
  }
  EXPECT_EQ(count, 4);
  const auto& [images, labels] = loader.next();
  EXPECT_EQ(images.dtype(), DType::f32);
  EXPECT_EQ(labels.dtype(), DType::i64);
}

TEST_P(LoaderDepth, CanBeDestroyedAtAnyMoment) {
  const auto set = numbered_set(60, 4, 4);
  for (int reads = 0; reads < 8; ++reads)
    for (const int pause : {0, 1}) {
      Loader loader(set, small(GetParam()));
      for (int i = 0; i < reads; ++i) loader.next();
      std::this_thread::sleep_for(milliseconds(pause));
    }
}

TEST_P(LoaderDepth, KeptTensorsKeepTheirValues) {
  const auto set = numbered_set(60, 4, 4);
  Loader reference(set, small(0)), loader(set, small(GetParam()));
  std::vector<Tensor> images, labels, views;
  std::vector<Content> expected;
  for (int i = 0; i < 12; ++i) {
    expected.push_back(content(reference.next()));
    const Batch& batch = loader.next();
    if (i % 3 == 0) images.push_back(batch.images);
    if (i % 3 == 1) labels.push_back(batch.labels);
    if (i % 3 == 2) views.push_back(batch.images.select(0, 1));
  }
  for (std::size_t i = 0; i < 12; ++i) {
    const Content& e = expected[i];
    if (i % 3 == 0) {
      EXPECT_EQ(images[i / 3].to_vector<float>(), e.images);
    } else if (i % 3 == 1) {
      EXPECT_EQ(labels[i / 3].to_vector<std::int64_t>(), e.labels);
    } else {
      EXPECT_EQ(views[i / 3].to_vector<float>(),
                std::vector<float>(e.images.begin() + 48, e.images.begin() + 96));
    }
  }
}

TEST_P(LoaderDepth, ATensorMayBeReadAndDroppedByAnotherThread) {
  const auto set = numbered_set(60, 4, 4);
  Loader reference(set, small(0)), loader(set, small(GetParam()));
  for (int i = 0; i < 30; ++i) {
    const Content expected = content(reference.next());
    std::vector<float> seen;
    std::atomic<bool> done = false;  // relaxed: orders nothing, so the loader itself has to
    Tensor images = loader.next().images;
    if (images.is_cuda()) cuda::synchronize();  // the reader has streams of its own
    std::thread reader([&, tensor = std::move(images)]() mutable {
      seen = tensor.to_vector<float>();
      tensor = Tensor();
      done.store(true, std::memory_order_relaxed);
    });
    if (i % 2 == 0)
      while (!done.load(std::memory_order_relaxed)) std::this_thread::yield();
    loader.next();
    reference.next();
    reader.join();
    EXPECT_EQ(seen, expected.images);
  }
}

TEST_P(LoaderDepth, AllocatesOnceOnTheRanksOwnThread) {
  Rank rank(0, 1, 1, 0);
  const RankScope scope(rank);
  const std::int64_t one = 4 * (3 * 48) * 4 + 4 * 8;  // 4 images of 48 floats x 3, 4 labels
  {
    Loader loader(numbered_set(64, 12, 4), {.batch_size = 4, .prefetch = GetParam()});
    const std::int64_t live = rank.ledger().live(Kind::buffers);
    EXPECT_EQ(live, one * (GetParam() + 1));
    std::set<const void*> places;
    for (int i = 0; i < 50; ++i) places.insert(loader.next().images.raw_data());
    EXPECT_EQ(places.size(), static_cast<std::size_t>(GetParam() + 1));
    EXPECT_EQ(rank.ledger().live(Kind::buffers), live);
    EXPECT_EQ(rank.ledger().peak_total(), live);
    EXPECT_EQ(rank.ledger().peak(Kind::activations), 0);
  }
  EXPECT_EQ(rank.ledger().live_total(), 0);
}

TEST_P(LoaderDepth, WhatTheTransformThrowsArrivesAtItsBatch) {
  LoaderOptions options = small(GetParam());
  options.shuffle = false;
  options.transform = [](std::span<std::uint8_t>, std::int64_t sample, std::int64_t epoch) {
    if (sample == 15 && epoch == 0) throw Error("[mine] sample 15 is odd");
  };
  Loader loader(numbered_set(60, 4, 4), options);
  // Rank 1 of 2 x 2: its slices begin at 3, 9 | 15.
  EXPECT_EQ(numbers_of(loader.next()), (std::vector<std::int64_t>{3, 4, 5}));
  EXPECT_EQ(numbers_of(loader.next()), (std::vector<std::int64_t>{9, 10, 11}));
  for (int again = 0; again < 3; ++again)
    EXPECT_EQ(error_of([&] { loader.next(); }), "[mine] sample 15 is odd");
  EXPECT_EQ(loader.position(), (Position{0, 1, 0}));
  loader.seek({0, 1, 1});  // past it
  EXPECT_EQ(numbers_of(loader.next()), (std::vector<std::int64_t>{21, 22, 23}));
  loader.seek({1, 1, 0});  // the same sample, an epoch later
  EXPECT_EQ(numbers_of(loader.next()), (std::vector<std::int64_t>{15, 16, 17}));
}

TEST_P(LoaderDepth, TransformChangesTheBytesAfterAugmentation) {
  const auto set = numbered_set(60, 4, 4);
  LoaderOptions plain = small(0), options = small(GetParam());
  plain.augment = options.augment = {.flip = true};
  options.transform = [](std::span<std::uint8_t> image, std::int64_t, std::int64_t) {
    for (auto& byte : image) byte = static_cast<std::uint8_t>(255 - byte);
  };
  Loader expected(set, plain), loader(set, options);
  for (int i = 0; i < 6; ++i) {
    const auto e = content(expected.next()).images, got = content(loader.next()).images;
    for (std::size_t j = 0; j < e.size(); ++j) ASSERT_NEAR(got[j], -e[j], 1e-6);
  }
}

TEST_P(LoaderDepth, EvaluationCoversEachSampleOnce) {
  const auto set = numbered_set(103, 4, 4);
  for (int ranks = 1; ranks <= 8; ++ranks) {
    std::multiset<std::int64_t> seen;
    for (int r = 0; r < ranks; ++r) {
      LoaderOptions options = evaluation(4 * ranks);
      options.rank = r;
      options.ranks = ranks;
      options.prefetch = GetParam();
      Loader loader(set, options);
      std::int64_t batches = 0;
      for (const Batch& batch : loader.epoch(0)) {
        ++batches;
        EXPECT_EQ(batch.size(), 4);
        for (std::int64_t i = 0; i < batch.valid; ++i) seen.insert(number_of(batch, i));
        for (std::int64_t i = batch.valid; i < 4; ++i) EXPECT_EQ(number_of(batch, i), 102);
      }
      EXPECT_EQ(batches, (103 + 4 * ranks - 1) / (4 * ranks)) << "equal on every rank";
    }
    std::int64_t next = 0;
    for (const std::int64_t number : seen) EXPECT_EQ(number, next++);
    EXPECT_EQ(next, 103);
  }
}

TEST_P(LoaderDepth, OnMetaThereAreShapesAndNoBytes) {
  Rank rank(0, 1, 1, 0);
  rank.device = kMeta;
  const RankScope scope(rank);
  Loader loader(numbered_set(64, 4, 4), {.batch_size = 8, .prefetch = GetParam()});
  for (int i = 0; i < 10; ++i) {
    const Batch& batch = loader.next();
    EXPECT_TRUE(batch.images.is_meta());
    EXPECT_EQ(batch.images.shape(), (Shape{8, 3, 4, 4}));
    EXPECT_EQ(batch.position.step, i % 8);
  }
}

TEST(Loader, RanksAndAccumulationSeeTheSameSlices) {
  const auto set = numbered_set(200, 8, 8);
  const auto slices = [&](int ranks, int accumulate) {  // contents of steps 0 and 1 in slice order
    std::vector<std::pair<std::vector<float>, std::int64_t>> all(
        static_cast<std::size_t>(2 * ranks * accumulate));
    for (int r = 0; r < ranks; ++r) {
      Loader loader(set, {.batch_size = 48,
                          .accumulate = accumulate,
                          .rank = r,
                          .ranks = ranks,
                          .seed = 8,
                          .augment = Augment::standard(),
                          .prefetch = r % 3});
      for (std::int64_t k = 0; k < 2; ++k)
        for (int a = 0; a < accumulate; ++a) {
          const Batch& batch = loader.next();
          all[static_cast<std::size_t>((k * accumulate + a) * ranks + r)] = {
              batch.images.to_vector<float>(), batch.first};
        }
    }
    return all;
  };
  for (const int count : {4, 6, 8, 12})
    for (int ranks = 1; ranks <= count; ++ranks) {
      if (count % ranks != 0) continue;
      EXPECT_EQ(slices(ranks, count / ranks), slices(1, count));
    }
}

TEST(Loader, RankThreadsShareOneDataset) {
  const auto set = numbered_set(400, 8, 8);
  std::vector<std::vector<std::int64_t>> seen(4);
  std::vector<std::thread> threads;
  for (int r = 0; r < 4; ++r)
    threads.emplace_back([&, r] {
      Rank rank(r, 4, 1, 6);
      const RankScope scope(rank);
      Loader loader(set, {.batch_size = 40, .prefetch = 2});
      for (const Batch& batch : loader.epoch(0))
        for (const std::int64_t number : numbers_of(batch))
          seen[static_cast<std::size_t>(r)].push_back(number);
    });
  for (std::thread& thread : threads) thread.join();
  std::set<std::int64_t> all;
  for (const auto& part : seen) {
    EXPECT_EQ(part.size(), 100u);
    all.insert(part.begin(), part.end());
  }
  EXPECT_EQ(all.size(), 400u);
}

TEST(Loader, PreparesAheadAndNoFurtherThanItsDepth) {
  std::atomic<int> samples = 0;
  Loader loader(numbered_set(100, 4, 4), {.batch_size = 5,
                                          .prefetch = 3,
                                          .transform = [&](std::span<std::uint8_t>, std::int64_t,
                                                           std::int64_t) { ++samples; }});
  EXPECT_EQ(samples, 0) << "nothing is prepared before the first next()";
  for (int taken = 1; taken <= 3; ++taken) {
    loader.next();
    for (int i = 0; i < 2000 && samples < 5 * (taken + 3); ++i)
      std::this_thread::sleep_for(milliseconds(1));
    std::this_thread::sleep_for(milliseconds(5));
    EXPECT_EQ(samples, 5 * (taken + 3));
  }
}

TEST(Loader, WaitHasADeadline) {
  std::atomic<bool> hold = true;
  const auto here = std::this_thread::get_id();
  Loader loader(numbered_set(1000, 4, 4),
                {.batch_size = 5,
                 .rank = 0,
                 .ranks = 1,
                 .prefetch = 2,
                 .deadline = milliseconds(40),
                 .transform = [&](std::span<std::uint8_t>, std::int64_t, std::int64_t) {
                   while (hold && std::this_thread::get_id() != here)
                     std::this_thread::sleep_for(milliseconds(1));
                 }});
  // Sooner or later the background thread gets to a micro-batch before next() does, and holds it.
  std::string text;
  std::int64_t step = 0;
  for (; text.empty() && step < 200; ++step) {
    try {
      loader.next();
      std::this_thread::sleep_for(milliseconds(5));
    } catch (const Error& error) {
      text = error.what();
      break;
    }
  }
  std::string again, seek;
  try {
    loader.next();
  } catch (const Error& error) {
    again = error.what();
  }
  try {
    loader.seek({0, 3, 0});
  } catch (const Error& error) {
    seek = error.what();
  }
  hold = false;  // before anything can leave this function: the destructor waits for the thread
  const std::string expected = fmt::format(
      "[loader] rank 0 waited 0.04 s for its background thread to prepare micro-batch 0 of step {} "
      "in epoch 0 of numbered; if the transform takes that long, raise LoaderOptions::deadline (0: "
      "no deadline)",
      step);
  EXPECT_EQ(text, expected);
  EXPECT_EQ(again, expected);
  EXPECT_EQ(seek, expected);
  EXPECT_EQ(loader.position(), (Position{0, step, 0}));
}

TEST(Loader, WithoutADeadlineItWaits) {
  Loader loader(numbered_set(100, 4, 4),
                {.batch_size = 5,
                 .prefetch = 1,
                 .deadline = milliseconds(0),
                 .transform = [&](std::span<std::uint8_t>, std::int64_t, std::int64_t) {
                   std::this_thread::sleep_for(milliseconds(2));
                 }});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(loader.next().position.step, i);
  loader.seek({0, 9, 0});
  EXPECT_EQ(loader.next().position.step, 9);
}

TEST(Loader, OtherDtypesAndScales) {
  const auto set = numbered_set(40, 4, 4);
  Loader f32(set, {.batch_size = 4, .mean = 0.4914, .deviation = 0.247, .prefetch = 0});
  Loader f64(
      set,
      {.batch_size = 4, .dtype = DType::f64, .mean = 0.4914, .deviation = 0.247, .prefetch = 1});
  Loader b16(
      set,
      {.batch_size = 4, .dtype = DType::bf16, .mean = 0.4914, .deviation = 0.247, .prefetch = 1});
  for (int i = 0; i < 3; ++i) {
    const auto a = f32.next().images.to_doubles(), b = f64.next().images.to_doubles(),
               c = b16.next().images.to_doubles();
    for (std::size_t j = 0; j < a.size(); ++j) {
      ASSERT_NEAR(a[j], b[j], 1e-6);
      ASSERT_NEAR(a[j], c[j], 0.01);
    }
  }
}

TEST(Loader, AutomaticDepthLeavesBusyCoresAlone) {
  const auto slots = [](int ranks, int threads) {
    Rank rank(0, ranks, threads, 0);
    const RankScope scope(rank);
    Loader loader(numbered_set(64, 4, 4), {.batch_size = 8 * ranks});
    std::set<const void*> places;
    for (int i = 0; i < 9; ++i) places.insert(loader.next().images.raw_data());
    return places.size();
  };
  EXPECT_EQ(slots(1, available_cores()), 1u);
  EXPECT_EQ(slots(available_cores(), 1), 1u);
  if (available_cores() > 1) {
    EXPECT_EQ(slots(1, available_cores() - 1), 3u);
  }
}

TEST(Loader, Errors) {
  const auto set = numbered_set(40, 4, 4);
  const auto error = [&](const LoaderOptions& options) {
    return error_of([&] { Loader loader(set, options); });
  };
  EXPECT_EQ(error({.batch_size = 30, .accumulate = 2, .rank = 0, .ranks = 4}),
            "[sampler] batch size 30 is not a whole number of micro-batches: 4 ranks x 2 "
            "accumulation = 8 slices; use 32 (or 24)");
  EXPECT_EQ(error({.batch_size = 4, .prefetch = -3}),
            "[loader] prefetch depth -3; use 0 (none) or more");
  EXPECT_EQ(error({.batch_size = 4, .augment = {.crop = -1}}),
            "[loader] crop padding of -1 pixels; use 0 (none) or more");
  expect_contains(error({.batch_size = 4, .dtype = DType::u8}), "needs a floating dtype, got u8");
  EXPECT_EQ(error_of([] { Loader loader(nullptr, {}); }),
            "[loader] no data set: the pointer is null");
  auto broken = numbered_set(40, 4, 4);
  broken->labels[7] = 11;
  EXPECT_EQ(error_of([&] { Loader loader(broken, {.batch_size = 4}); }),
            "[dataset] numbered: label 11 of sample 7 has no class; there are 10 classes");
  Loader loader(set, {.batch_size = 4, .accumulate = 2});
  EXPECT_EQ(error_of([&] {
              loader.seek({0, 10, 0});
            }),
            "[loader] cannot go to epoch 0, step 10, micro-batch 0: an epoch has 10 steps of 2 "
            "micro-batches, and all count from 0");
  expect_contains(error_of([&] { loader.seek({-1, 0, 0}); }), "cannot go to epoch -1");
  expect_contains(error_of([&] { loader.epoch(0, 10); }), "cannot go to epoch 0, step 10");
}

}  // namespace
}  // namespace sg::data
