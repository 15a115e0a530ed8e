#include "data/augment.h"

#include <map>

#include "support.h"

namespace sg::data {
namespace {

using Image = std::vector<std::uint8_t>;

Image augmented(const Augment& options, const Dataset& set, std::int64_t sample, std::int64_t epoch,
                std::uint64_t seed = 0) {
  Image out(static_cast<std::size_t>(set.image_size()));
  augment(options, set, sample, epoch, seed, out);
  return out;
}

/// What the definition says, pixel by pixel.
Image moved(const Dataset& set, std::int64_t sample, bool flip, std::int64_t dy, std::int64_t dx) {
  Image out;
  for (std::int64_t c = 0; c < set.channels; ++c)
    for (std::int64_t y = 0; y < set.height; ++y)
      for (std::int64_t x = 0; x < set.width; ++x) {
        const std::int64_t sy = y + dy, sx = (flip ? set.width - 1 - x : x) + dx;
        const bool inside = sy >= 0 && sy < set.height && sx >= 0 && sx < set.width;
        out.push_back(
            inside ? set.image(
                         sample)[static_cast<std::size_t>((c * set.height + sy) * set.width + sx)]
                   : std::uint8_t{0});
      }
  return out;
}

TEST(Augment, IsOffByDefault) {
  const auto set = numbered_set(2);
  EXPECT_FALSE(Augment{}.any());
  EXPECT_TRUE(Augment::standard().any());
  const auto image = set->image(1);
  EXPECT_EQ(augmented({}, *set, 1, 0), Image(image.begin(), image.end()));
}

TEST(Augment, FlipIsAMirrorHalfOfTheTime) {
  const auto set = numbered_set(1, 5, 6);
  const Image same = moved(*set, 0, false, 0, 0), mirror = moved(*set, 0, true, 0, 0);
  int flips = 0;
  for (int epoch = 0; epoch < 1000; ++epoch) {
    const Image got = augmented({.flip = true}, *set, 0, epoch);
    EXPECT_TRUE(got == same || got == mirror);
    flips += got == mirror;
  }
  EXPECT_NEAR(flips, 500, 5 * 16);
}

TEST(Augment, CropTakesEachPlaceEquallyOftenAndFlipsIndependently) {
  const auto set = numbered_set(1, 6, 5);
  const auto key = [](const Image& image) { return std::string(image.begin(), image.end()); };
  std::map<std::string, int> counts;
  for (const bool flip : {false, true})
    for (int dy = -2; dy <= 2; ++dy)
      for (int dx = -2; dx <= 2; ++dx) counts[key(moved(*set, 0, flip, dy, dx))] = 0;
  ASSERT_EQ(counts.size(), 50u);
  for (int epoch = 0; epoch < 10'000; ++epoch) {
    const auto found = counts.find(key(augmented({.flip = true, .crop = 2}, *set, 0, epoch)));
    ASSERT_NE(found, counts.end()) << "not a crop of the padded image";
    ++found->second;
  }
  for (const auto& [image, count] : counts) EXPECT_NEAR(count, 200, 5 * 14);
}

TEST(Augment, CropWiderThanTheImageIsBlackAtMost) {
  const auto set = numbered_set(1, 2, 2);
  for (int epoch = 0; epoch < 200; ++epoch) {
    const Image got = augmented({.crop = 5}, *set, 0, epoch);
    bool known = false;
    for (int dy = -5; dy <= 5; ++dy)
      for (int dx = -5; dx <= 5; ++dx) known = known || got == moved(*set, 0, false, dy, dx);
    EXPECT_TRUE(known);
  }
}

TEST(Augment, IsAFunctionOfSeedEpochAndSample) {
  const auto set = numbered_set(100);
  const Augment options = Augment::standard();
  int by_epoch = 0, by_seed = 0;
  for (std::int64_t i = 0; i < 100; ++i) {
    const Image image = augmented(options, *set, i, 1, 1);
    EXPECT_EQ(image, augmented(options, *set, i, 1, 1));
    by_epoch += image != augmented(options, *set, i, 2, 1);
    by_seed += image != augmented(options, *set, i, 1, 2);
  }
  EXPECT_GT(by_epoch, 90);
  EXPECT_GT(by_seed, 90);
}

}  // namespace
}  // namespace sg::data
