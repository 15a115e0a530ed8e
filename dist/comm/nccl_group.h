// The device group of dist/comm/nccl.h. nccl.cpp holds what it does, nccl_failure.cpp how it ends.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/cuda/context.h"
#include "core/tensor.h"
#include "dist/comm/nccl.h"
#include "dist/comm/nccl_library.h"
#include "dist/comm/watch.h"

namespace sg::dist {

class NcclGroup final : public DeviceGroup {
 public:
  NcclGroup(Transport& host, const NcclOptions& options);
  ~NcclGroup() override;

  void gather(cuda::Context& context, const Posting& mine, void* out) override;
  std::vector<const void*> terms(cuda::Context& context, const Posting& mine, void* room) override;
  void queued(const Posting& mine, const MarkPtr& finished) override {
    watch_.add(mine, finished);
  }
  void check() const override;
  std::uint64_t first_unfinished() const override { return watch_.first_unfinished(); }
  void trim() override { scratch_ = {}; }
  void drain() override;
  void close() override;

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::microseconds kMoment{100};
  static constexpr const char* kClose = "close";

  // f(comm) calls NCCL; returns when that has queued its work, throws what went wrong.
  template <class F>
  void call(const Posting& mine, F f);
  void wait_for_room(const Posting& mine);
  std::vector<const void*> terms_in_order(cuda::Context& context, const Posting& mine);
  std::vector<const void*> total(cuda::Context& context, const Posting& mine, void* room);
  char* scratch(cuda::Context& context, const Posting& mine, std::int64_t bytes);
  void order_scratch();

  // Texts of what ends a group; "" for nothing.
  std::string held_up(const Posting& mine, Clock::duration waited);  // by other ranks
  std::string held_up_at_end(Clock::duration waited);
  std::string trouble(const Posting& mine, Clock::duration waited);
  std::string idle_trouble() const;
  std::string broken(const Posting& mine, ncclResult_t result);
  std::string ended(const Posting& mine, const std::string& error) const;
  void give_up(const std::string& text);
  void abort();
  // Waits for the abort first: until it is through, NCCL may still write what a caller would free.
  void throw_failure(std::unique_lock<std::mutex>& lock) const;

  Transport& host_;
  const NcclOptions options_;
  mutable std::mutex mutex_;  // held in every call of NCCL but the abort
  ncclComm_t comm_ = nullptr;
  bool closed_ = false;
  std::string failure_;
  std::atomic<bool> failed_{false}, calling_{false};
  bool aborted_ = false;
  mutable std::condition_variable changed_;  // aborted_
  int gone_ = -1;                            // a rank that was seen to have left
  Clock::time_point gone_at_ = {};
  Tensor scratch_;
  cuda::Context* scratch_on_ = nullptr;  // it lives while scratch_ does
  std::int64_t largest_ = 0;
  Clock::duration all_ended_ = {}, said_ = {};  // since close() began; zero: not yet
  Watch watch_;  // the last: it asks from when it is made
};

}  // namespace sg::dist
