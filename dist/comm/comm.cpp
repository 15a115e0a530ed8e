#include "dist/comm/comm.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/fault.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "dist/comm/threads.h"

namespace sg::dist {
namespace {

thread_local Comm* tls_comm = nullptr;

constexpr std::int64_t kCopyGrain = 1 << 17;  // bytes worth a thread

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

Comm::~Comm() {
  stop();
  for (const auto& operation : unreleased_) {
    if (operation->done_) continue;
    try {
      operation->order_after(operation->finished_);
    } catch (const std::exception&) {
      // As above.
    }
  }
}

std::shared_ptr<Operation> Comm::start(Posting posting, Device device, std::shared_ptr<void> owner,
                                       std::string_view name, std::int64_t sent,
                                       std::function<void(Operation&)> finish) {
  auto operation = std::make_shared<Operation>();
  operation->comm_ = this;
  operation->finish_ = std::move(finish);
  posting.device = device;
  if (SG_CUDA && device.is_cuda()) {
    SG_CHECK(transport_->carries(device),
             "[{}] this group's ranks are processes connected by Gloo, which carries main memory "
             "alone; on {} ranks are threads of one process (--ranks)",
             posting.op, name_of(device));
    // Its bytes are written, and what it writes to is allocated, in the order of the compute lane.
    operation->context_ = cuda::current(device);
    posting.written = cuda::mark(*operation->context_, cuda::Lane::compute);
  }
  if (size() == 1) {
    operation->posting_ = posting;
    operation->released_ = true;
    carry_out(*operation);
    operation->finish_ = nullptr;
    operation->done_ = true;
    operation->order_after(operation->finished_);
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
  Entry& entry = history_[posting.sequence % kHistory];
  entry = {posting, mix(before, posting), false};
  entry.posting.written = nullptr;
  const Rank& rank = current_rank();
  rank.ledger().book_traffic(rank.phase, name, sent);
  if (rank.account != nullptr) rank.account->book_traffic(rank.phase, name, sent);
  // Those that the transport is about to forget: post() would wait for their readers, too.
  while (!unreleased_.empty() &&
         unreleased_.front()->posting_.sequence + Transport::kDepth <= posting.sequence) {
    unreleased_.front()->wait_readers();
    unreleased_.pop_front();
  }
  transport_->post(posting);
  unreleased_.push_back(operation);
  if (stream_ != nullptr)
    operation->on_stream_ = stream_->enqueue(
        [this, op = operation.get()] { this->finish(*op); });  // unreleased_ keeps it
  return operation;
}

const char* Comm::view(const Operation& operation, int peer) {
  if (!SG_CUDA || operation.context_ == nullptr) return transport_->view(operation.posting_, peer);
  MarkPtr written;
  const char* const data = transport_->view(operation.posting_, peer, &written);
  cuda::wait(*operation.context_, cuda::Lane::communication, *written);
  return data;
}

void Comm::read(const Operation& operation, int peer, char* to) {
  if (SG_CUDA && operation.context_ != nullptr)
    return copy(operation, to, view(operation, peer), operation.posting_.bytes);
  transport_->read(operation.posting_, peer, to);
}

void Comm::copy(const Operation& operation, void* to, const void* from, std::int64_t bytes) {
  if (SG_CUDA && operation.context_ != nullptr)
    return cuda::copy(*operation.context_, cuda::Lane::communication, to, from,
                      static_cast<std::size_t>(bytes));
  parallel_for(bytes, kCopyGrain, [&](std::int64_t begin, std::int64_t end) {
    std::memcpy(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin,
                static_cast<std::size_t>(end - begin));
  });
}

void Comm::carry_out(Operation& operation) {
  cuda::Context* const context = operation.context_;
  if (SG_CUDA && context != nullptr)
    cuda::wait(*context, cuda::Lane::communication, *operation.posting_.written);
  operation.finish_(operation);
  if (SG_CUDA && context != nullptr)
    operation.finished_ = cuda::mark(*context, cuda::Lane::communication);
}

void Comm::finish(Operation& operation) {
  try {
    carry_out(operation);
    transport_->finish(operation.posting_.sequence, operation.finished_);
    history_[operation.posting_.sequence % kHistory].finished = true;
  } catch (...) {
    operation.error_ = std::current_exception();
    // What its lane has been given already ends before the memory that it writes is freed.
    if (SG_CUDA && operation.context_ != nullptr && operation.finished_ == nullptr) try {
        operation.finished_ = cuda::mark(*operation.context_, cuda::Lane::communication);
      } catch (const std::exception&) {
        // The device is lost; its error is on its way.
      }
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
    order_after(finished_);
    // What these hold is freed on the rank's own thread.
    finish_ = nullptr;
    on_stream_ = nullptr;
  }
  if (error_ != nullptr) std::rethrow_exception(error_);
}

// The rank's ops come after the mark.
void Operation::order_after(const MarkPtr& mark) {
  if (SG_CUDA && mark != nullptr) cuda::wait(*context_, cuda::Lane::compute, *mark);
}

void Operation::wait_readers() {
  wait();
  if (released_) return;
  std::vector<MarkPtr> read;
  comm_->transport_->wait_released(posting_.sequence, &read);
  for (const MarkPtr& mark : read) order_after(mark);
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
