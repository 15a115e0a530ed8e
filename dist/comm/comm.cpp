#include "dist/comm/comm.h"

#include "core/check.h"
#include "dist/comm/threads.h"

namespace sg::dist {
namespace {

thread_local Comm* tls_comm = nullptr;

}  // namespace

Comm::Comm(std::unique_ptr<Transport> transport, Executor executor)
    : transport_(std::move(transport)), executor_(executor) {
  if (executor_ == Executor::thread && size() > 1) thread_ = std::thread([this] { work(); });
}

Comm::~Comm() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::shared_ptr<Operation> Comm::start(Posting posting, std::string_view name, std::int64_t sent,
                                       std::function<void(Operation&)> finish) {
  auto operation = std::make_shared<Operation>();
  operation->comm_ = this;
  operation->finish_ = std::move(finish);
  if (size() == 1) {
    operation->posting_ = posting;
    operation->released_ = true;
    operation->finish_(*operation);
    operation->state_ = Operation::State::done;
    return operation;
  }
  // A transport remembers a bounded number of postings; every rank finishes the same old one before it posts more.
  if (unreleased_.size() >= kWindow) unreleased_[unreleased_.size() - kWindow]->wait();
  posting.sequence = next_++;
  operation->posting_ = posting;
  current_rank().ledger().book_traffic(current_rank().phase, name, sent);
  transport_->post(posting);
  unreleased_.push_back(operation);
  if (thread_.joinable()) {
    {
      const std::lock_guard lock(mutex_);
      queue_.push_back(operation);
    }
    changed_.notify_all();
  }
  return operation;
}

const char* Comm::view(const Operation& operation, int peer) {
  return transport_->view(operation.posting_, peer);
}

void Comm::finish(Operation& operation) {
  try {
    operation.finish_(operation);
    transport_->finish(operation.posting_.sequence);
  } catch (...) {
    operation.error_ = std::current_exception();
  }
}

void Comm::work() {
  Rank helper(rank(), size(), 1, 0);  // the comm thread computes alone and allocates nothing
  const RankScope scope(helper);
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || !queue_.empty(); });
    if (queue_.empty()) return;
    const std::shared_ptr<Operation> operation = queue_.front();
    queue_.pop_front();
    lock.unlock();
    finish(*operation);
    lock.lock();
    operation->state_ = Operation::State::done;
    changed_.notify_all();
  }
}

void Comm::quiesce() {
  while (!unreleased_.empty()) {
    const std::shared_ptr<Operation> operation = unreleased_.front();
    operation->wait_released();
    unreleased_.pop_front();
  }
}

void Operation::wait() {
  if (comm_->thread_.joinable() && comm_->size() > 1) {
    std::unique_lock lock(comm_->mutex_);
    comm_->changed_.wait(lock, [&] { return state_ == State::done; });
  } else if (state_ != State::done) {
    comm_->finish(*this);
    state_ = State::done;
  }
  finish_ = nullptr;
  if (error_ != nullptr) std::rethrow_exception(error_);
}

void Operation::wait_released() {
  wait();
  if (released_) return;
  comm_->transport_->wait_released(posting_.sequence);
  released_ = true;
}

Comm& current_comm() {
  if (tls_comm != nullptr) return *tls_comm;
  // A group of one; its world has no peers to share it with.
  thread_local ThreadWorld world(1, {});
  thread_local Comm alone(world.transport(0), Executor::inlined);
  return alone;
}

CommScope::CommScope(Comm& comm) : previous_(std::exchange(tls_comm, &comm)) {}
CommScope::~CommScope() { tls_comm = previous_; }

}  // namespace sg::dist
