#include "data/sampler.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "core/check.h"
#include "core/rng.h"
#include "data/permutation.h"

namespace sg::data {

std::vector<std::int32_t> epoch_order(std::int64_t size, std::uint64_t seed, std::int64_t epoch,
                                      bool shuffled) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(size));
  std::iota(order.begin(), order.end(), 0);
  const std::uint64_t key =
      mix_keys(mix_keys(name_key("data.order"), seed), static_cast<std::uint64_t>(epoch));
  if (shuffled) shuffle(std::span<std::int32_t>(order), key);
  return order;
}

Sampler::Sampler(const SamplerOptions& options) : options_(options) {
  const SamplerOptions& o = options_;
  SG_CHECK(o.ranks > 0 && o.accumulate > 0,
           "[sampler] {} ranks x {} accumulation; both must be at least 1", o.ranks, o.accumulate);
  SG_CHECK(o.rank >= 0 && o.rank < o.ranks, "[sampler] rank {} of {} ranks; expected 0 to {}",
           o.rank, o.ranks, o.ranks - 1);
  SG_CHECK(o.size > 0 && o.size <= std::numeric_limits<std::int32_t>::max(),
           "[sampler] a data set of {} samples; expected 1 to {}", o.size,
           std::numeric_limits<std::int32_t>::max());
  const std::int64_t slices = std::int64_t{o.ranks} * o.accumulate;
  SG_CHECK(o.batch_size > 0, "[sampler] batch size {}; use a positive multiple of {}", o.batch_size,
           slices);
  if (o.batch_size % slices != 0) {
    const std::int64_t below = o.batch_size / slices * slices;
    fail(
        "[sampler] batch size {} is not a whole number of micro-batches: {} ranks x {} "
        "accumulation = {} slices; use {}{}",
        o.batch_size, o.ranks, o.accumulate, slices, below + slices,
        below > 0 ? fmt::format(" (or {})", below) : "");
  }
  micro_batch_ = o.batch_size / slices;
  steps_ = (o.tail == Tail::pad ? o.size + o.batch_size - 1 : o.size) / o.batch_size;
  SG_CHECK(
      steps_ > 0,
      "[sampler] {} samples do not make one batch of {}, and training drops an incomplete one; "
      "use a smaller batch, or Tail::pad for evaluation",
      o.size, o.batch_size);
}

Slice Sampler::slice(std::int64_t step, int micro) const {
  SG_CHECK(step >= 0 && step < steps_, "[sampler] step {} of an epoch of {} steps", step, steps_);
  SG_CHECK(micro >= 0 && micro < options_.accumulate, "[sampler] micro-batch {} of {}", micro,
           options_.accumulate);
  Slice slice;
  slice.first = (std::int64_t{micro} * options_.ranks + options_.rank) * micro_batch_;
  slice.begin = step * options_.batch_size + slice.first;
  slice.valid = std::clamp<std::int64_t>(options_.size - slice.begin, 0, micro_batch_);
  return slice;
}

Slice Sampler::samples(std::int64_t epoch, std::int64_t step, int micro,
                       std::span<std::int32_t> samples) {
  SG_CHECK(epoch >= 0, "[sampler] epoch {}; epochs count from 0", epoch);
  const Slice part = slice(step, micro);
  SG_CHECK(static_cast<std::int64_t>(samples.size()) == micro_batch_,
           "[sampler] room for {} samples, a micro-batch has {}", samples.size(), micro_batch_);
  if (order_.empty() || (options_.shuffle && epoch != epoch_)) {
    order_ = epoch_order(options_.size, options_.seed, epoch, options_.shuffle);
    epoch_ = epoch;
  }
  const auto valid = samples.begin() + part.valid;
  if (part.valid > 0) std::copy_n(order_.begin() + part.begin, part.valid, samples.begin());
  std::fill(valid, samples.end(), order_.back());
  return part;
}

}  // namespace sg::data
