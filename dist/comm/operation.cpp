#include "dist/comm/operation.h"

#include "dist/comm/comm.h"

namespace sg::dist {

void Operation::carry_out() {
  if (SG_CUDA && context_ != nullptr)
    cuda::wait(*context_, cuda::Lane::communication, *posting_.written);
  finish_(*this);
  if (SG_CUDA && context_ != nullptr) finished_ = cuda::mark(*context_, cuda::Lane::communication);
}

void Operation::finish() {
  try {
    carry_out();
    comm_->carried_out(*this);
  } catch (...) {
    error_ = std::current_exception();
    // What its lane has been given already ends before the memory that it writes is freed.
    if (SG_CUDA && context_ != nullptr && finished_ == nullptr) try {
        finished_ = cuda::mark(*context_, cuda::Lane::communication);
      } catch (const std::exception&) {
        // The device is lost; its error is on its way.
      }
  }
}

void Operation::wait() {
  if (!done_) {
    if (on_stream_ != nullptr)
      on_stream_->wait();
    else if (!between_gpus_)
      finish();
    done_ = true;
    order_after(finished_);
    let_go();
  }
  if (error_ != nullptr) std::rethrow_exception(error_);
  if (between_gpus_) comm_->check_devices();
}

// The rank's ops come after the mark.
void Operation::order_after(const MarkPtr& mark) {
  if (SG_CUDA && mark != nullptr) cuda::wait(*context_, cuda::Lane::compute, *mark);
}

void Operation::let_go() {
  finish_ = nullptr;
  on_stream_ = nullptr;
  posting_.written = nullptr;
}

void Operation::wait_readers() {
  wait();
  if (released_) return;
  std::vector<MarkPtr> read;
  // What peers get from this rank's GPU they have got when its own part is done.
  if (!between_gpus_) comm_->wait_released(posting_, &read);
  for (const MarkPtr& mark : read) order_after(mark);
  released_ = true;
  posted_ = nullptr;
}

}  // namespace sg::dist
