#include "data/augment.h"

#include <algorithm>

#include "core/rng.h"

namespace sg::data {

void augment(const Augment& options, const Dataset& set, std::int64_t sample, std::int64_t epoch,
             std::uint64_t seed, std::span<std::uint8_t> out) {
  const auto words = philox(mix_keys(name_key("data.augment"), seed),
                            static_cast<std::uint64_t>(sample), static_cast<std::uint64_t>(epoch));
  const auto offset = [&](std::uint32_t word) {  // uniform in [-crop, crop]
    const auto places = static_cast<std::uint64_t>(2 * options.crop + 1);
    return static_cast<std::int64_t>((word * places) >> 32) - options.crop;
  };
  const bool flip = options.flip && (words[0] & 1u) != 0;
  const std::int64_t dy = offset(words[1]), dx = offset(words[2]);
  const std::int64_t height = set.height, width = set.width;
  // Columns of the result that lie within the source: the others are padding.
  const std::int64_t left = std::clamp<std::int64_t>(-dx, 0, width);
  const std::int64_t right = std::clamp<std::int64_t>(width - dx, left, width);

  const std::uint8_t* in = set.image(sample).data();
  std::uint8_t* row = out.data();
  for (std::int64_t c = 0; c < set.channels; ++c, in += height * width)
    for (std::int64_t y = 0; y < height; ++y, row += width) {
      const std::int64_t from = y + dy;
      if (from < 0 || from >= height) {
        std::fill_n(row, width, std::uint8_t{0});
        continue;
      }
      std::fill_n(row, left, std::uint8_t{0});
      std::copy_n(in + from * width + left + dx, right - left, row + left);
      std::fill(row + right, row + width, std::uint8_t{0});
      if (flip) std::reverse(row, row + width);
    }
}

}  // namespace sg::data
