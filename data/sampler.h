// Which samples each rank sees, and when: one global order an epoch for any number of ranks.
//
// Training step k of an epoch takes the samples at positions [k B, (k + 1) B) of the epoch's order.
// It is cut into N A equal slices for N ranks and A micro-batches, and micro-batch a of rank r is
// slice a N + r. So the samples of a step, and the slice that each gradient is summed from, do not
// depend on how N A is split into N and A.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/rank.h"

namespace sg::data {

/// What to do with the last samples of an epoch, where they do not fill a batch.
enum class Tail : std::uint8_t {
  drop,  ///< leave them out (training); with shuffling they are others each epoch
  pad,   ///< a last batch whose missing samples are masked (evaluation): every sample once, equal
         ///< counts of batches
};

struct SamplerOptions {
  std::int64_t size = 0;        ///< samples of the data set
  std::int64_t batch_size = 0;  ///< of one step, over all ranks and micro-batches
  int accumulate = 1;           ///< micro-batches a rank and step
  int rank = current_rank().index;
  int ranks = current_rank().world_size;
  std::uint64_t seed = current_rank().seed;
  bool shuffle =
      true;  ///< a new order each epoch, from (seed, epoch); false: the data set's own order
  Tail tail = Tail::drop;
};

/// One micro-batch of one rank.
struct Slice {
  std::int64_t begin = 0;  ///< position of its first sample in the epoch's order
  std::int64_t first = 0;  ///< position of its first sample in the global batch; keys the random
                           ///< numbers of a forward
  std::int64_t valid =
      0;  ///< samples that count; fewer than micro_batch() only in the last batch of Tail::pad
};

/// The order of all samples in an epoch: a permutation of 0 ... size - 1 that is a function of
/// (seed, epoch) alone.
std::vector<std::int32_t> epoch_order(std::int64_t size, std::uint64_t seed, std::int64_t epoch,
                                      bool shuffle);

/// Keeps the order of the epoch asked for last, so each thread needs its own.
class Sampler {
 public:
  /// Errors: a batch that N A slices do not divide, a rank out of range, a training set smaller
  /// than one batch.
  explicit Sampler(const SamplerOptions& options);

  const SamplerOptions& options() const { return options_; }
  std::int64_t steps_per_epoch() const { return steps_; }
  /// Samples of one micro-batch of one rank, padding included.
  std::int64_t micro_batch() const { return micro_batch_; }

  Slice slice(std::int64_t step, int micro) const;
  /// Fills `samples`, micro_batch() long, with the data set's indices of a micro-batch. Where fewer
  /// are valid, the rest repeats the last sample of the order: readable like any other, and not to
  /// be counted.
  Slice samples(std::int64_t epoch, std::int64_t step, int micro, std::span<std::int32_t> samples);

 private:
  SamplerOptions options_;
  std::int64_t steps_ = 0, micro_batch_ = 0;
  std::int64_t epoch_ = -1;  // of order_
  std::vector<std::int32_t> order_;
};

}  // namespace sg::data
