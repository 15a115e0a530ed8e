#include "dist/comm/comm.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/fault.h"
#include "core/parallel.h"

namespace sg::dist {
namespace {

constexpr std::int64_t kCopyGrain = 1 << 17;  // bytes worth a thread

}  // namespace

// A GPU's errors name the last collective, and what it computed without its peers is never read.
class Comm::OnGpu final : public cuda::Collectives {
 public:
  explicit OnGpu(const Comm& comm) : comm_(comm) {}
  std::string last() const override { return comm_.history_.last(); }
  void check() const override { comm_.check_devices(); }

 private:
  const Comm& comm_;
};

Comm::Comm(std::unique_ptr<Transport> transport, Executor executor)
    : transport_(std::move(transport)),
      executor_(executor),
      on_gpu_(std::make_shared<OnGpu>(*this)) {
  if (executor_ == Executor::thread && size() > 1)
    stream_ = std::make_unique<Stream>(Rank(rank(), size(), 1, 0));
}

Comm::~Comm() {
  stop();
  devices_.reset();  // what its lanes still wait for ends here
  for (const auto& operation : unreleased_) {
    if (operation->done_) continue;
    try {
      operation->order_after(operation->finished_);
    } catch (const std::exception&) {
      // The device is lost; its error was thrown where it was found.
    }
  }
}

// Its bytes are written, and what it writes to is allocated, in the order of the compute lane.
void Comm::begin_on(Operation& operation, Device device) {
  Posting& posting = operation.posting_;
  posting.device = device;
  if (SG_CUDA && device.is_cuda()) {
    operation.between_gpus_ = devices_ != nullptr;
    SG_CHECK(
        operation.between_gpus_ || transport_->carries(device),
        "[{}] the processes of this group are connected by Gloo, which carries main memory "
        "alone; {} needs NCCL between them, or ranks that are threads of one process (--ranks)",
        posting.op, name_of(device));
    operation.context_ = cuda::current(device);
    cuda::set_collectives(*operation.context_, on_gpu_);
    check_devices();
    posting.written = cuda::mark(*operation.context_, cuda::Lane::compute);
  }
}

std::shared_ptr<Operation> Comm::start(Posting posting, Device device, std::shared_ptr<void> owner,
                                       std::string_view name, std::int64_t sent,
                                       std::function<void(Operation&)> finish) {
  auto operation = std::make_shared<Operation>();
  operation->comm_ = this;
  operation->finish_ = std::move(finish);
  operation->posting_ = posting;
  begin_on(*operation, device);
  if (size() == 1) {
    operation->released_ = true;
    operation->carry_out();
    if (operation->between_gpus_) devices_->queued(operation->posting_, operation->finished_);
    operation->done_ = true;
    operation->order_after(operation->finished_);
    operation->let_go();
    return operation;
  }
  // A transport remembers a bounded number of postings; every rank finishes the same old one before
  // it posts more.
  if (unreleased_.size() >= kWindow) unreleased_[unreleased_.size() - kWindow]->wait();
  const fault::Action action = fault::at(name, {fault::Action::skip, fault::Action::wrongshape});
  if (action == fault::Action::wrongshape) ++operation->posting_.count;
  if (action == fault::Action::skip) {
    operation->released_ = operation->done_ = true;
    return operation;
  }
  history_.add(operation->posting_, operation->between_gpus_);
  operation->posted_ = std::move(owner);
  book(name, sent);
  post(operation);
  return operation;
}

void Comm::book(std::string_view name, std::int64_t sent) const {
  const Rank& rank = current_rank();
  rank.ledger().book_traffic(rank.phase, name, sent);
  if (rank.account != nullptr) rank.account->book_traffic(rank.phase, name, sent);
}

void Comm::post(const std::shared_ptr<Operation>& operation) {
  const Posting& posting = operation->posting_;
  // Those that the transport is about to forget: it would wait for their readers, too.
  while (!unreleased_.empty() &&
         unreleased_.front()->posting_.sequence + Transport::kDepth <= posting.sequence) {
    unreleased_.front()->wait_readers();
    unreleased_.pop_front();
  }
  if (operation->between_gpus_) {
    transport_->entered(posting);
    unreleased_.push_back(operation);
    return operation->finish();
  }
  transport_->post(posting);
  unreleased_.push_back(operation);
  if (stream_ != nullptr)
    operation->on_stream_ =
        stream_->enqueue([op = operation.get()] { op->finish(); });  // unreleased_ keeps it
}

void Comm::gather(const Operation& operation, void* out) {
  const Posting& mine = operation.posting_;
  if (operation.between_gpus_) return devices_->gather(*operation.context_, mine, out);
  char* const to = static_cast<char*>(out);
  char* const own = to + rank() * mine.bytes;
  if (own != mine.data) copy(operation, own, mine.data, mine.bytes);
  // Each rank begins with its successor, so that not all read the same memory at once.
  for (int k = 1; k < size(); ++k) {
    const int r = (rank() + k) % size();
    const std::int64_t piece = this->piece(operation);
    std::int64_t begin = 0;
    do {
      copy(operation, to + r * mine.bytes + begin, view(operation, r, begin),
           std::min(piece, mine.bytes - begin));
    } while ((begin += piece) < mine.bytes);
  }
}

std::vector<const void*> Comm::terms(const Operation& operation, std::int64_t begin, void* room) {
  const Posting& mine = operation.posting_;
  if (operation.between_gpus_) return devices_->terms(*operation.context_, mine, room);
  std::vector<const void*> all;
  for (int r = 0; r < size(); ++r)
    all.push_back(r == rank() ? mine.data + r * mine.stride + begin : view(operation, r, begin));
  return all;
}

std::int64_t Comm::piece(const Operation& operation) const {
  const Posting& mine = operation.posting_;
  return operation.context_ != nullptr || size() == 1 ? mine.bytes : transport_->piece(mine);
}

const char* Comm::view(const Operation& operation, int peer, std::int64_t begin) {
  if (!SG_CUDA || operation.context_ == nullptr)
    return transport_->view(operation.posting_, peer, begin);
  MarkPtr written;
  const char* const data = transport_->view(operation.posting_, peer, begin, &written);
  cuda::wait(*operation.context_, cuda::Lane::communication, *written);
  return data;
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

void Comm::carried_out(Operation& operation) {
  if (operation.between_gpus_) return devices_->queued(operation.posting_, operation.finished_);
  transport_->finish(operation.posting_, operation.finished_);
  history_.finish(operation.posting_);
}

void Comm::check_devices() const {
  if (devices_ != nullptr) devices_->check();
}

void Comm::leave() {
  for (const auto& operation : unreleased_) operation->wait();
  if (devices_ != nullptr) devices_->drain();
  transport_->leave();
  if (devices_ != nullptr) devices_->close();
}

void Comm::quiesce() {
  while (!unreleased_.empty()) {
    const std::shared_ptr<Operation> operation = unreleased_.front();
    operation->wait_readers();
    unreleased_.pop_front();
  }
  if (devices_ != nullptr) devices_->trim();
}

std::string Comm::history(std::size_t most) const {
  return history_.text(most, first_unfinished());
}

bool Comm::any_finished() const { return history_.any_finished(first_unfinished()); }

}  // namespace sg::dist
