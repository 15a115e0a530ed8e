// Micro-batches of one rank as tensors, prepared by a background thread.
//
//   data::Loader loader(set.train, {.batch_size = 128, .accumulate = 2});
//   for (auto [images, labels] : loader.epoch(e)) { ... }  // one epoch, 2 micro-batches a step
//   loader.seek({.epoch = 3, .step = 17});                 // resume anywhere
//   const data::Batch& batch = loader.next();              // endless: epoch after epoch
//
// Rank and world are those of current_rank().
//
// A rank allocates and frees on its own thread alone: the tensors are made here, on the thread that
// constructs, calls and destroys the loader, and the background thread only writes their bytes.
// Where that thread falls behind (a machine with more threads than cores), next() does its work.
//
// For a GPU they are written in pinned memory, and whoever wrote them queues the copy on the lane
// for copies (core/cuda/lanes.h): batches that are prepared ahead arrive while the GPU computes.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <iterator>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>
#include <vector>

#include "core/tensor.h"
#include "data/augment.h"
#include "data/dataset.h"
#include "data/normalize.h"
#include "data/sampler.h"

namespace sg::cuda {
class Context;
class Mark;
}  // namespace sg::cuda

namespace sg::data {

/// A place in training: a step of an epoch, and a micro-batch of the step. All count from 0.
struct Position {
  std::int64_t epoch = 0;
  std::int64_t step = 0;
  int micro = 0;
  bool operator==(const Position&) const = default;
};

/// One micro-batch, on the device of the rank that made the loader. `auto [images, labels] = batch`
/// takes the two tensors.
struct Batch {
  Tensor images;      ///< floating [b, channels, height, width], normalised
  Tensor labels;      ///< i64 [b]
  Position position;  ///< where it stands in training
  /// Position of its first sample in the global batch: StepState::first_sample.
  std::int64_t first = 0;
  /// Rows that count, from row 0 on; fewer than b only in the last step of Tail::pad.
  std::int64_t valid = 0;

  std::int64_t size() const { return labels.size(0); }
  template <std::size_t I>
  const Tensor& get() const {
    if constexpr (I == 0)
      return images;
    else
      return labels;
  }
};

struct LoaderOptions {
  std::int64_t batch_size = 32;  ///< of one step, over all ranks and micro-batches
  int accumulate = 1;            ///< micro-batches a rank and step
  int rank = current_rank().index;
  int ranks = current_rank().world_size;
  std::uint64_t seed = current_rank().seed;  ///< of order and augmentation
  bool shuffle = true;
  Tail tail = Tail::drop;
  Augment augment = {};
  DType dtype = DType::f32;            ///< of the images
  double mean = 0.5, deviation = 0.5;  ///< images are (x / 255 - mean) / deviation
  /// Micro-batches that a background thread prepares ahead; 0: no thread, next() fills the tensors
  /// itself (about 25 us for 32 images). kAuto: 2 where cores are left over, counting all ranks as
  /// being on this machine, else 0: a thread that takes turns with one of an OpenMP team holds up
  /// the whole team. (A rank on a GPU computes with one thread.)
  int prefetch = kAuto;
  /// How long next() waits for the background thread before it throws; 0: for ever.
  std::chrono::milliseconds deadline = std::chrono::minutes(10);
  /// An own change of an image's bytes, after `augment` and before normalisation. Called on the
  /// background thread or, where that has not got to it, in next(); never on both at once. What it
  /// throws is thrown by next().
  std::function<void(std::span<std::uint8_t> image, std::int64_t sample, std::int64_t epoch)>
      transform = nullptr;

  static constexpr int kAuto = -1;
};

/// Options that cover each sample of a test set once, in its own order, equally many batches on
/// every rank.
LoaderOptions evaluation(std::int64_t batch_size);

class Loader {
 public:
  class Epoch;

  /// Errors: those of Sampler and Dataset::validate, a dtype that is not floating, a negative
  /// depth.
  Loader(DatasetPtr set, const LoaderOptions& options);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  const Dataset& dataset() const { return *set_; }
  const LoaderOptions& options() const { return options_; }
  std::int64_t steps_per_epoch() const { return sampler_.steps_per_epoch(); }
  /// Micro-batches that this rank gets in an epoch.
  std::int64_t batches_per_epoch() const { return steps_per_epoch() * options_.accumulate; }

  /// The next micro-batch; after an epoch's last comes the next epoch's first. The reference is
  /// good until the next call of next() or seek(); a copy of a tensor keeps its values for as long
  /// as it lives (the loader then goes on with a fresh one, which costs an allocation).
  const Batch& next();
  /// What next() will give.
  Position position() const;
  /// Goes on from there.
  void seek(const Position& position);

  /// The micro-batches of one epoch, from `first_step` on, for a range-for. Leaving it early is
  /// fine.
  Epoch epoch(std::int64_t epoch, std::int64_t first_step = 0);

 private:
  struct Slot {
    Batch batch;
    // Bytes of batch's tensors, for the thread that fills them; null on `meta`. For a GPU those of
    // the staged ones, which are pinned.
    void* images = nullptr;
    std::int64_t* labels = nullptr;
    Tensor staged_images, staged_labels;
    // The compute lane is done with what batch's tensors held before; they hold what is staged.
    std::shared_ptr<cuda::Mark> unread, copied;
  };

  void make_tensors(Slot& slot) const;
  bool shared(const Slot& slot) const;
  void fill(Slot& slot, std::int64_t index);
  void upload(Slot& slot);
  void fill_next(std::unique_lock<std::mutex>& lock);  // unlocks while it fills
  void run(Device device);                             // the background thread
  template <class Ready>
  void wait(std::unique_lock<std::mutex>& lock, Ready ready);
  Position position_of(std::int64_t index) const;
  Slot& slot(std::int64_t index) { return slots_[static_cast<std::size_t>(index) % slots_.size()]; }

  DatasetPtr set_;
  LoaderOptions options_;
  Normalizer normalizer_;
  cuda::Context* gpu_ = nullptr;  // the rank's, or null
  std::int64_t next_ = 0;  // what next() gives: a micro-batch's index since the start of epoch 0

  // A ring with one slot more than the depth: that one is the consumer's. A slot's number counts
  // all fillings, so that a number names one of them.
  std::vector<Slot> slots_;

  // Of the thread that set filling_.
  Sampler sampler_;
  std::vector<std::int32_t> samples_;
  std::vector<std::uint8_t> image_;

  std::thread thread_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable room_, news_;
  std::int64_t head_ = 0;    // number of the next slot to hand out
  std::int64_t ready_ = 0;   // slots from head_ on that are full
  std::int64_t cursor_ = 0;  // index of the micro-batch to fill next
  bool filling_ = false, stop_ = false;
  std::exception_ptr error_;  // what filling `cursor_` threw
};

/// Range of Loader::epoch; one pass.
class Loader::Epoch {
 public:
  class Iterator {
   public:
    using value_type = Batch;
    using difference_type = std::ptrdiff_t;
    Iterator(Loader* loader, std::int64_t left) : loader_(loader), left_(left) { advance(); }
    const Batch& operator*() const { return *batch_; }
    const Batch* operator->() const { return batch_; }
    Iterator& operator++() {
      --left_;
      advance();
      return *this;
    }
    void operator++(int) { ++*this; }
    bool operator==(std::default_sentinel_t) const { return left_ == 0; }

   private:
    void advance() { batch_ = left_ > 0 ? &loader_->next() : nullptr; }
    Loader* loader_;
    std::int64_t left_;
    const Batch* batch_ = nullptr;
  };

  Iterator begin() const;
  std::default_sentinel_t end() const { return {}; }

 private:
  friend class Loader;
  Epoch(Loader* loader, Position start) : loader_(loader), start_(start) {}
  Loader* loader_;
  Position start_;
};

}  // namespace sg::data

template <>
struct std::tuple_size<sg::data::Batch> : std::integral_constant<std::size_t, 2> {};
template <std::size_t I>
struct std::tuple_element<I, sg::data::Batch> {
  using type = const sg::Tensor;
};
