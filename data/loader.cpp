#include "data/loader.h"

#include <cmath>
#include <memory>
#include <utility>

#include "core/check.h"
#include "core/cuda/lanes.h"
#include "core/fault.h"

namespace sg::data {
namespace {

DatasetPtr checked(DatasetPtr set) {
  SG_CHECK(set, "[loader] no data set: the pointer is null");
  set->validate();
  return set;
}

SamplerOptions sampler_options(std::int64_t size, const LoaderOptions& o) {
  return {.size = size,
          .batch_size = o.batch_size,
          .accumulate = o.accumulate,
          .rank = o.rank,
          .ranks = o.ranks,
          .seed = o.seed,
          .shuffle = o.shuffle,
          .tail = o.tail};
}

std::int64_t depth_of(const LoaderOptions& o) {
  const Rank& rank = current_rank();
  if (o.prefetch == LoaderOptions::kAuto)
    return available_cores() > o.ranks * (rank.device.is_cuda() ? 1 : rank.threads) ? 2 : 0;
  SG_CHECK(o.prefetch >= 0, "[loader] prefetch depth {}; use 0 (none) or more", o.prefetch);
  return o.prefetch;
}

}  // namespace

LoaderOptions evaluation(std::int64_t batch_size) {
  return {.batch_size = batch_size, .shuffle = false, .tail = Tail::pad};
}

Loader::Loader(DatasetPtr set, const LoaderOptions& options)
    : set_(checked(std::move(set))),
      options_(options),
      normalizer_(options.dtype, options.mean, options.deviation),
      slots_(static_cast<std::size_t>(depth_of(options)) + 1),
      sampler_(sampler_options(set_->size(), options)),
      samples_(static_cast<std::size_t>(sampler_.micro_batch())),
      image_(static_cast<std::size_t>(set_->image_size())) {
  SG_CHECK(options_.augment.crop >= 0, "[loader] crop padding of {} pixels; use 0 (none) or more",
           options_.augment.crop);
  const Device device = current_rank().device;
  if (SG_CUDA && device.is_cuda()) gpu_ = cuda::current(device);
  for (Slot& slot : slots_) make_tensors(slot);
}

Loader::~Loader() {
  if (thread_.joinable()) {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    room_.notify_one();
    thread_.join();
  }
  // Both sides of copies that are still under way go now, the GPU's in the order of another lane.
  for (const Slot& slot : slots_) try {
      if (SG_CUDA && slot.copied != nullptr) cuda::wait(*slot.copied);
    } catch (const std::exception&) {
      // The device is lost; its error was thrown where it was found.
    }
}

void Loader::make_tensors(Slot& slot) const {
  const Scoped kind(current_rank().kind, Kind::buffers);
  const std::int64_t b = sampler_.micro_batch();
  Batch& batch = slot.batch;
  const Shape shape{b, set_->channels, set_->height, set_->width};
  batch.images = Tensor::empty(shape, options_.dtype);
  batch.labels = Tensor::empty({b}, DType::i64);
  batch.images.storage()->label = "images";
  batch.labels.storage()->label = "labels";
  if (batch.images.is_meta()) return;
  if (SG_CUDA && gpu_ != nullptr) {
    // Memory is given, and was given back before, in the order of the compute lane.
    slot.unread = cuda::mark(*gpu_, cuda::Lane::compute);
    if (slot.images != nullptr) return;
    slot.staged_images = Tensor::empty_pinned(shape, options_.dtype);
    slot.staged_labels = Tensor::empty_pinned({b}, DType::i64);
  }
  const bool staged = slot.staged_images.defined();
  slot.images = (staged ? slot.staged_images : batch.images).raw_data();
  slot.labels = (staged ? slot.staged_labels : batch.labels).data<std::int64_t>();
}

bool Loader::shared(const Slot& slot) const {
  // With two holders, slot and copy, the tensors are ours again. Reading a count does not order
  // another thread's last read of the bytes before our next write; dropping these copies does, as
  // the count goes down with acquire and release.
  const std::shared_ptr<Storage> images = slot.batch.images.storage();
  const std::shared_ptr<Storage> labels = slot.batch.labels.storage();
  return images.use_count() > 2 || labels.use_count() > 2;
}

Position Loader::position_of(std::int64_t index) const {
  const std::int64_t step = index / options_.accumulate;
  return {.epoch = step / steps_per_epoch(),
          .step = step % steps_per_epoch(),
          .micro = static_cast<int>(index % options_.accumulate)};
}

void Loader::fill(Slot& slot, std::int64_t index) {
  Batch& batch = slot.batch;
  batch.position = position_of(index);
  const auto [epoch, step, micro] = batch.position;
  const Slice slice = sampler_.samples(epoch, step, micro, samples_);
  batch.first = slice.first;
  batch.valid = slice.valid;
  if (slot.images == nullptr) return;

  if (SG_CUDA && slot.copied != nullptr) cuda::wait(*slot.copied);  // what was staged before
  const bool change = options_.augment.any() || options_.transform;
  const std::size_t stride = image_.size() * size_of(options_.dtype);
  auto* out = static_cast<std::byte*>(slot.images);
  for (std::size_t i = 0; i < samples_.size(); ++i, out += stride) {
    const std::int64_t sample = samples_[i];
    slot.labels[i] = set_->labels[static_cast<std::size_t>(sample)];
    if (!change) {
      normalizer_(set_->image(sample), out);
      continue;
    }
    augment(options_.augment, *set_, sample, epoch, options_.seed, image_);
    if (options_.transform) options_.transform(image_, sample, epoch);
    normalizer_(image_, out);
  }
  if (SG_CUDA && gpu_ != nullptr) upload(slot);
}

void Loader::upload(Slot& slot) {
  if (!SG_CUDA) return;  // nor are there lanes
  const auto queue = [&](const Tensor& to, const Tensor& from) {
    cuda::upload(*gpu_, cuda::Lane::copies_in, to.raw_data(), from.raw_data(),
                 static_cast<std::size_t>(from.bytes()));
  };
  cuda::wait(*gpu_, cuda::Lane::copies_in, *slot.unread);
  queue(slot.batch.images, slot.staged_images);
  queue(slot.batch.labels, slot.staged_labels);
  slot.copied = cuda::mark(*gpu_, cuda::Lane::copies_in);
}

void Loader::fill_next(std::unique_lock<std::mutex>& lock) {
  Slot& target = slot(head_ + ready_);
  const std::int64_t index = cursor_;
  filling_ = true;
  lock.unlock();
  std::exception_ptr error;
  try {
    fill(target, index);
  } catch (...) {
    error = std::current_exception();
  }
  lock.lock();
  filling_ = false;
  if (error) {
    error_ = error;
  } else {
    ++ready_;
    ++cursor_;
  }
}

void Loader::run(Device device) {
  if (SG_CUDA && gpu_ != nullptr) cuda::use(device);
  const auto depth = static_cast<std::int64_t>(slots_.size()) - 1;
  std::unique_lock lock(mutex_);
  while (true) {
    // No deadline here: the consumer may compute for as long as it likes, and its destructor ends
    // this wait.
    room_.wait(lock, [&] { return stop_ || (ready_ < depth && !filling_ && !error_); });
    if (stop_) return;
    fill_next(lock);
    news_.notify_one();
  }
}

template <class Ready>
void Loader::wait(std::unique_lock<std::mutex>& lock, Ready ready) {
  if (options_.deadline.count() == 0) {
    news_.wait(lock, ready);
    return;
  }
  if (news_.wait_for(lock, options_.deadline, ready)) return;
  const auto [epoch, step, micro] = position_of(cursor_);
  fail(
      "[loader] rank {} waited {} s for its background thread to prepare micro-batch {} of step {} "
      "in epoch {} of {}; if the transform takes that long, raise LoaderOptions::deadline (0: no "
      "deadline)",
      options_.rank, static_cast<double>(options_.deadline.count()) / 1000, micro, step, epoch,
      set_->name);
}

const Batch& Loader::next() {
  // The slot handed out last goes back into the ring, as long as nobody else holds its tensors.
  Slot& last = slot(head_ + static_cast<std::int64_t>(slots_.size()) - 1);
  if (shared(last))
    make_tensors(last);
  else if (SG_CUDA && gpu_ != nullptr)
    last.unread = cuda::mark(*gpu_, cuda::Lane::compute);
  const bool background = slots_.size() > 1;
  // The slots' tensors are not the thread's to look at: one may be replaced before it begins.
  if (background && !thread_.joinable())
    thread_ = std::thread(&Loader::run, this, last.batch.images.device());

  std::unique_lock lock(mutex_);
  // Where nothing is ready and nobody is at it, the background thread has not got a core in time
  // (or there is none): waiting for it would take longer than doing its work.
  if (ready_ == 0 && !filling_ && !error_) fill_next(lock);
  wait(lock, [&] { return ready_ > 0 || error_; });
  if (ready_ == 0) std::rethrow_exception(error_);
  Slot& ready = slot(head_);
  ++head_;
  --ready_;
  ++next_;
  lock.unlock();
  if (background) room_.notify_one();
  if (SG_CUDA && gpu_ != nullptr) cuda::wait(*gpu_, cuda::Lane::compute, *ready.copied);
  if (fault::at("data", {fault::Action::nan}) == fault::Action::nan) ready.batch.images.fill(NAN);
  return ready.batch;
}

Position Loader::position() const { return position_of(next_); }

void Loader::seek(const Position& p) {
  SG_CHECK(p.epoch >= 0 && p.step >= 0 && p.step < steps_per_epoch() && p.micro >= 0 &&
               p.micro < options_.accumulate,
           "[loader] cannot go to epoch {}, step {}, micro-batch {}: an epoch has {} steps of {} "
           "micro-batches, and all count from 0",
           p.epoch, p.step, p.micro, steps_per_epoch(), options_.accumulate);
  std::unique_lock lock(mutex_);
  // What is being filled is filled for the old place: it must not be counted later.
  wait(lock, [&] { return !filling_; });
  next_ = cursor_ = (p.epoch * steps_per_epoch() + p.step) * options_.accumulate + p.micro;
  ready_ = 0;
  error_ = nullptr;
  lock.unlock();
  room_.notify_one();
}

Loader::Epoch Loader::epoch(std::int64_t epoch, std::int64_t first_step) {
  const Position start{.epoch = epoch, .step = first_step};
  if (start != position()) seek(start);
  return {this, start};
}

Loader::Epoch::Iterator Loader::Epoch::begin() const {
  if (loader_->position() != start_) loader_->seek(start_);
  return {loader_, (loader_->steps_per_epoch() - start_.step) * loader_->options_.accumulate};
}

}  // namespace sg::data
