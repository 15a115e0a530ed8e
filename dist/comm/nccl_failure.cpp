// How a group of GPUs ends before its time. An error of NCCL, a collective that takes too long and
// the news that a rank has failed have the same effect: the other ranks are told by the transport,
// and the communicator is aborted, so that no lane waits for ever. Whoever waits for the GPU, or
// starts a collective, then gets the text.
#include <algorithm>
#include <string_view>

#include "core/check.h"
#include "dist/comm/nccl_group.h"
#include "dist/say.h"

namespace sg::dist {
namespace {

// How long the transport may take to tell who died, where NCCL only sees that somebody is gone.
constexpr std::chrono::milliseconds kVerdict{1500};
// How long, at most, what a rank has queued may take to end since another one was seen to have
// left: its part of it is done, but two others may still have much to send each other.
constexpr std::chrono::milliseconds kLastWork{30'000};

// A collective, or "connect".
std::string name(const Posting& mine) {
  return mine.device.is_cuda() ? describe(mine) : std::string(mine.op);
}

}  // namespace

void NcclGroup::throw_failure(std::unique_lock<std::mutex>& lock) const {
  if (failed_) {
    changed_.wait(lock, [this] { return aborted_; });
    throw Error(failure_);
  }
  SG_CHECK(!closed_, "[nccl] the group of rank {} has ended", host_.rank());
}

void NcclGroup::check() const {
  if (!failed_) [[likely]]
    return;
  std::unique_lock lock(mutex_);
  throw_failure(lock);
}

void NcclGroup::give_up(const std::string& text) {
  {
    const std::lock_guard lock(mutex_);
    if (failed_) return;
    failure_ = text;
    failed_ = true;
  }
  // Before the peers' NCCL notices: they are to name this cause, not that somebody is gone.
  try {
    if (host_.failure().empty()) host_.poison(text);
  } catch (const std::exception&) {
    // The others cannot be told; they notice by themselves that this rank is gone.
  }
  watch_.end();
  abort();
}

std::string NcclGroup::held_up(const Posting& mine, Clock::duration waited) {
  const int rank = host_.rank();
  const std::string failure = host_.failure();
  if (!failure.empty())
    return fmt::format("[{}] rank {} stopped in {} because another rank failed: {}", mine.op, rank,
                       name(mine), failure);
  if (std::string_view(mine.op) == kClose) return held_up_at_end(waited);
  if (const int gone = host_.gone(); gone >= 0) {
    const std::lock_guard lock(mutex_);
    if (gone_ < 0) gone_at_ = Clock::now();
    gone_ = gone;
    const bool bounded = options_.deadline.count() > 0;
    if (Clock::now() - gone_at_ >= (bounded ? std::min(options_.deadline, kLastWork) : kLastWork))
      return fmt::format(
          "[{}] rank {} waits for rank {} in {}, but rank {} has ended; every rank must run the "
          "same steps",
          mine.op, rank, gone, name(mine), gone);
    return {};
  }
  if (options_.deadline.count() == 0 || waited < options_.deadline) return {};
  return fmt::format(
      "[{}] rank {} waited {} ms for the GPUs of its peers in {}{}; every rank must run the same "
      "steps",
      mine.op, rank, options_.deadline.count(), name(mine), host_.whereabouts());
}

// Others may have more to do, for as long as they like: only when all have ended is there a
// deadline.
std::string NcclGroup::held_up_at_end(Clock::duration waited) {
  const int rank = host_.rank(), at_work = host_.at_work();
  if (at_work >= 0) {
    if (waited - said_ >= options_.reminder) {
      said_ = waited;
      const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(waited).count();
      say_error("[close] rank {} has ended and waits for rank {}, which is at work ({} s){}\n",
                rank, at_work, seconds, host_.whereabouts());
    }
    return {};
  }
  if (all_ended_ == Clock::duration{}) all_ended_ = waited;
  if (options_.deadline.count() == 0 || waited - all_ended_ < options_.deadline) return {};
  return fmt::format(
      "[close] rank {} waited {} ms for the GPUs of its peers, all of which have ended", rank,
      options_.deadline.count());
}

// It waits for nobody, but NCCL may want all ranks of a host to let go of each other.
std::string NcclGroup::idle_trouble() const {
  const std::string failure = host_.failure();
  if (failure.empty() || calling_) return {};  // a call says more of where it is
  const std::lock_guard lock(mutex_);
  if (closed_) return {};
  return fmt::format("[nccl] rank {} stopped because another rank failed: {}", host_.rank(),
                     failure);
}

std::string NcclGroup::trouble(const Posting& mine, Clock::duration waited) {
  const std::string text = held_up(mine, waited);
  if (!text.empty()) return text;
  ncclResult_t result = ncclSuccess;
  {
    const std::lock_guard lock(mutex_);
    if (comm_ == nullptr) return text;
    const ncclResult_t asked = nccl().CommGetAsyncError(comm_, &result);
    if (asked != ncclSuccess) result = asked;
  }
  if (result == ncclSuccess || result == ncclInProgress) return text;
  return broken(mine, result);
}

std::string NcclGroup::broken(const Posting& mine, ncclResult_t result) {
  if (result == ncclRemoteError || result == ncclSystemError) {
    const Clock::time_point start = Clock::now();
    while (Clock::now() - start < kVerdict) {
      const std::string text = held_up(mine, Clock::duration(0));
      if (!text.empty()) return text;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
  std::string details;
  {
    const std::lock_guard lock(mutex_);
    if (comm_ != nullptr) details = nccl().GetLastError(comm_);
  }
  return ended(mine, fmt::format("NCCL: {}{}", nccl().GetErrorString(result),
                                 details.empty() ? details : fmt::format(" ({})", details)));
}

std::string NcclGroup::ended(const Posting& mine, const std::string& error) const {
  return fmt::format("[{}] rank {} stopped in {}: {}", mine.op, host_.rank(), name(mine), error);
}

}  // namespace sg::dist
