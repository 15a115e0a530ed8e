#include "data/synthetic.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "core/check.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "data/permutation.h"

namespace sg::data {
namespace {

constexpr int kSide = 32;
constexpr int kPixels = kSide * kSide;
constexpr int kClasses = 10;
constexpr int kNoise = 40;  // noise is uniform in [-kNoise, kNoise]

const std::array<const char*, kClasses> kNames = {
    "rows",           "columns",       "rising-stripes", "falling-stripes", "narrow-rows",
    "narrow-columns", "narrow-rising", "narrow-falling", "checkers",        "rings"};

/// A sine of period 256 with values -128 to 128, made of two parabolas.
int sine(int phase) {
  const int half = phase & 127;
  const int value = (half * (128 - half)) >> 5;
  return (phase & 128) ? -value : value;
}

/// Integers drawn one after the other from one image's stream.
class Draws {
 public:
  Draws(std::uint64_t key, std::int64_t image)
      : key_(key), image_(static_cast<std::uint64_t>(image)) {}
  std::uint32_t word() {
    if (next_ % 4 == 0) words_ = philox(key_, next_ / 4, image_);
    return words_[next_++ % 4];
  }
  /// Uniform in [low, high].
  int in(int low, int high) {
    const auto n = static_cast<std::uint64_t>(high - low + 1);
    return low + static_cast<int>((word() * n) >> 32);
  }
  bool coin() { return (word() & 1u) != 0; }
  /// The next counter of four words that nobody has seen.
  std::uint64_t fresh_counter() const { return (next_ + 3) / 4; }

 private:
  std::uint64_t key_, image_, next_ = 0;
  std::array<std::uint32_t, 4> words_{};
};

using Wave = std::array<int, kPixels>;  // -128 to 128

/// Stripes. Directions and frequencies are fixed-point: 1 << 14 is one, 1 << 16 is one period.
void stripes(Draws& draw, int direction, bool narrow, Wave& wave) {
  constexpr int kOne = 1 << 14, kDiagonal = 11585;  // 2^14 / sqrt(2)
  constexpr std::array<std::pair<int, int>, 4> kNormals = {
      {{0, kOne}, {kOne, 0}, {kDiagonal, kDiagonal}, {kDiagonal, -kDiagonal}}};
  const auto [nx, ny] = kNormals[static_cast<std::size_t>(direction)];
  const int tilt = draw.in(-kOne / 8, kOne / 8);  // about 7 degrees either way
  const int frequency =
      narrow ? (1 << 16) * 10 / draw.in(42, 56) : (1 << 16) * 10 / draw.in(84, 120);
  const int kx = ((nx - ((tilt * ny) >> 14)) * frequency) >> 14;
  const int ky = ((ny + ((tilt * nx) >> 14)) * frequency) >> 14;
  const int phase = draw.in(0, 65535);
  for (int y = 0; y < kSide; ++y)
    for (int x = 0; x < kSide; ++x)
      wave[static_cast<std::size_t>(y * kSide + x)] =
          sine(((kx * x + ky * y + phase) & 0xffff) >> 8);
}

void checkers(Draws& draw, Wave& wave) {
  const int frequency = (1 << 16) * 10 / draw.in(84, 120);
  const int px = draw.in(0, 65535), py = draw.in(0, 65535);
  std::array<int, kSide> along_x, along_y;
  for (int i = 0; i < kSide; ++i) {
    along_x[static_cast<std::size_t>(i)] = sine(((frequency * i + px) & 0xffff) >> 8);
    along_y[static_cast<std::size_t>(i)] = sine(((frequency * i + py) & 0xffff) >> 8);
  }
  for (int y = 0; y < kSide; ++y)
    for (int x = 0; x < kSide; ++x)
      wave[static_cast<std::size_t>(y * kSide + x)] =
          along_x[static_cast<std::size_t>(x)] * along_y[static_cast<std::size_t>(y)] / 128;
}

void rings(Draws& draw, Wave& wave) {
  const int frequency = (1 << 16) * 10 / draw.in(60, 90);
  const int phase = draw.in(0, 65535);
  const int cx = draw.in(64, 64 * (kSide - 2)),
            cy = draw.in(64, 64 * (kSide - 2));  // in 1/64 pixel
  for (int y = 0; y < kSide; ++y)
    for (int x = 0; x < kSide; ++x) {
      const int dx = 64 * x - cx, dy = 64 * y - cy;
      // sqrt is correctly rounded by IEEE 754: the same integer everywhere.
      const int radius = static_cast<int>(std::sqrt(static_cast<double>(dx * dx + dy * dy)));
      wave[static_cast<std::size_t>(y * kSide + x)] =
          sine((((frequency * radius) >> 6) + phase) >> 8 & 255);
    }
}

int label_of(std::uint64_t key, std::int64_t image) {
  std::array<int, kClasses> order;
  for (int i = 0; i < kClasses; ++i) order[static_cast<std::size_t>(i)] = i;
  shuffle(std::span<int>(order), mix_keys(key, static_cast<std::uint64_t>(image / kClasses)));
  return order[static_cast<std::size_t>(image % kClasses)];
}

void paint(std::uint64_t key, std::int64_t index, int label, std::uint8_t* out) {
  Draws draw(key, index);
  Wave wave;
  if (label < 8)
    stripes(draw, label % 4, label >= 4, wave);
  else if (label == 8)
    checkers(draw, wave);
  else
    rings(draw, wave);

  std::array<int, 3> base, contrast;
  for (std::size_t c = 0; c < 3; ++c) {
    base[c] = draw.in(88, 168);
    contrast[c] = draw.in(24, 64) * (draw.coin() ? 1 : -1);
  }
  std::uint64_t counter = draw.fresh_counter();
  for (std::size_t c = 0; c < 3; ++c)
    for (std::size_t p = 0; p < kPixels; p += 16) {
      const auto words = philox(key, counter++, static_cast<std::uint64_t>(index));
      for (std::size_t i = 0; i < 16; ++i) {
        const int byte = static_cast<int>(words[i / 4] >> (8 * (i % 4)) & 255u);
        const int noise = (byte * (2 * kNoise + 1) >> 8) - kNoise;
        const int value = base[c] + ((contrast[c] * wave[p + i]) / 128) + noise;
        out[c * kPixels + p + i] = static_cast<std::uint8_t>(std::clamp(value, 0, 255));
      }
    }
}

DatasetPtr make(const char* name, std::uint64_t seed, std::int64_t size) {
  const std::uint64_t key = mix_keys(name_key(name), seed);
  auto set = std::make_shared<Dataset>();
  set->name = name;
  set->classes.assign(kNames.begin(), kNames.end());
  set->labels.resize(static_cast<std::size_t>(size));
  set->images.resize(static_cast<std::size_t>(size * set->image_size()));
  parallel_for(size, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const int label = label_of(key, i);
      set->labels[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(label);
      paint(key, i, label, set->images.data() + i * set->image_size());
    }
  });
  return set;
}

}  // namespace

Splits synthetic(const SyntheticOptions& options) {
  SG_CHECK(options.train > 0 && options.test > 0,
           "[synthetic] {} training and {} test images; both must be positive", options.train,
           options.test);
  return {make("synthetic train", options.seed, options.train),
          make("synthetic test", options.seed, options.test)};
}

}  // namespace sg::data
