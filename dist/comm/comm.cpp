#include "dist/comm/comm.h"

#include <algorithm>

#include "core/check.h"
#include "core/fault.h"
#include "core/rng.h"
#include "dist/comm/threads.h"

namespace sg::dist {
namespace {

thread_local Comm* tls_comm = nullptr;

// Multiplication and shift after Knuth, TAOCP 6.4: the odd number is 2^64 / phi.
std::uint64_t mix(std::uint64_t before, const Posting& p) {
  std::uint64_t h = before;
  for (const std::uint64_t word :
       {name_key(p.op), static_cast<std::uint64_t>(p.unit.index),
        static_cast<std::uint64_t>(p.dtype), static_cast<std::uint64_t>(p.count)}) {
    h = (h ^ word) * 0x9E3779B97F4A7C15u;
    h ^= h >> 32;
  }
  return h;
}

}  // namespace

Comm::Comm(std::unique_ptr<Transport> transport, Executor executor)
    : transport_(std::move(transport)), executor_(executor) {
  if (executor_ == Executor::thread && size() > 1)
    stream_ = std::make_unique<Stream>(Rank(rank(), size(), 1, 0));
}

Comm::~Comm() { stop(); }

std::shared_ptr<Operation> Comm::start(Posting posting, std::shared_ptr<void> owner,
                                       std::string_view name, std::int64_t sent,
                                       std::function<void(Operation&)> finish) {
  auto operation = std::make_shared<Operation>();
  operation->comm_ = this;
  operation->finish_ = std::move(finish);
  if (size() == 1) {
    operation->posting_ = posting;
    operation->released_ = true;
    operation->finish_(*operation);
    operation->finish_ = nullptr;
    operation->done_ = true;
    return operation;
  }
  // A transport remembers a bounded number of postings; every rank finishes the same old one before
  // it posts more.
  if (unreleased_.size() >= kWindow) unreleased_[unreleased_.size() - kWindow]->wait();
  const fault::Action action = fault::at(name, {fault::Action::skip, fault::Action::wrongshape});
  if (action == fault::Action::wrongshape) ++posting.count;
  if (action == fault::Action::skip) {
    operation->posting_ = posting;
    operation->released_ = operation->done_ = true;
    return operation;
  }
  posting.sequence = next_++;
  operation->posting_ = posting;
  operation->posted_ = std::move(owner);
  const std::uint64_t before =
      posting.sequence == 0 ? 0 : history_[(posting.sequence - 1) % kHistory].fingerprint;
  history_[posting.sequence % kHistory] = {posting, mix(before, posting), false};
  const Rank& rank = current_rank();
  rank.ledger().book_traffic(rank.phase, name, sent);
  if (rank.account != nullptr) rank.account->book_traffic(rank.phase, name, sent);
  transport_->post(posting);
  unreleased_.push_back(operation);
  // Of those that the transport has forgotten, nobody reads any more.
  while (unreleased_.front()->posting_.sequence + Transport::kDepth <= posting.sequence) {
    unreleased_.front()->posted_ = nullptr;
    unreleased_.pop_front();
  }
  if (stream_ != nullptr)
    operation->on_stream_ = stream_->enqueue(
        [this, op = operation.get()] { this->finish(*op); });  // unreleased_ keeps it
  return operation;
}

const char* Comm::view(const Operation& operation, int peer) {
  return transport_->view(operation.posting_, peer);
}

void Comm::read(const Operation& operation, int peer, char* to) {
  transport_->read(operation.posting_, peer, to);
}

void Comm::finish(Operation& operation) {
  try {
    operation.finish_(operation);
    transport_->finish(operation.posting_.sequence);
    history_[operation.posting_.sequence % kHistory].finished = true;
  } catch (...) {
    operation.error_ = std::current_exception();
  }
}

void Comm::leave() {
  for (const auto& operation : unreleased_) operation->wait();
  transport_->leave();
}

void Comm::quiesce() {
  while (!unreleased_.empty()) {
    const std::shared_ptr<Operation> operation = unreleased_.front();
    operation->wait_readers();
    unreleased_.pop_front();
  }
}

std::string Comm::history(std::size_t most) const {
  std::string text;
  const std::uint64_t kept = std::min<std::uint64_t>({next_, kHistory, most});
  for (std::uint64_t s = next_ - kept; s < next_; ++s) {
    const Entry& entry = history_[s % kHistory];
    text += fmt::format("{}{}\n", describe(entry.posting), entry.finished ? "" : ", unfinished");
  }
  return text;
}

std::vector<std::uint64_t> Comm::fingerprints() const {
  std::vector<std::uint64_t> all;
  for (std::uint64_t s = next_ - std::min<std::uint64_t>(next_, kHistory); s < next_; ++s)
    all.push_back(history_[s % kHistory].fingerprint);
  return all;
}

std::string Comm::describe_started(std::size_t i) const {
  const std::uint64_t first = next_ - std::min<std::uint64_t>(next_, kHistory);
  return describe(history_[(first + i) % kHistory].posting);
}

void Operation::wait() {
  if (!done_) {
    if (on_stream_ != nullptr)
      on_stream_->wait();
    else
      comm_->finish(*this);
    done_ = true;
    // What these hold is freed on the rank's own thread.
    finish_ = nullptr;
    on_stream_ = nullptr;
  }
  if (error_ != nullptr) std::rethrow_exception(error_);
}

void Operation::wait_readers() {
  wait();
  if (released_) return;
  comm_->transport_->wait_released(posting_.sequence);
  released_ = true;
  posted_ = nullptr;
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
