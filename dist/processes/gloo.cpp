#include <cstring>
#include <new>
#include <thread>
#include <utility>

#include "core/check.h"
#include "dist/processes/gloo_impl.h"
#include "dist/processes/gloo_store.h"
#include "dist/processes/sigpipe.h"

namespace sg::dist {
namespace {

constexpr std::int64_t kLeastPiece = 256 << 10, kMostPiece = 1 << 20;  // bytes

}  // namespace

GlooTransport::Impl::Impl(StoreClient& store, const std::string& address, int rank, int size,
                          milliseconds deadline)
    : store_(store), rank_(rank), size_(size), deadline_(deadline), last_(Index(size)) {
  const NoSigpipe quiet;
  context_ =
      std::make_shared<Mesh>(address, rank, size, deadline.count() > 0 ? deadline : kForever);
  watchdog_ = std::make_unique<Watchdog>(deadline);
  store.on_event([this] {
    if (store_.failure()) context_->closeConnections();
  });
  std::string error;
  try {
    GlooStore addresses(store, deadline);
    context_->connect(addresses);
  } catch (const std::exception& e) {
    error = e.what();
  }
  store.on_event([this] { watchdog_->interrupt(); });
  try {
    throw_failure("connect", nullptr);
    SG_CHECK(error.empty(), "[launch] rank {} cannot connect to its peers from {}: {}", rank_,
             address, error);
  } catch (...) {
    store.on_event({});
    throw;
  }
}

void GlooTransport::Impl::close() {
  if (context_ == nullptr) return;
  const NoSigpipe quiet;
  store_.on_event({});
  watchdog_->interrupt();
  context_->closeConnections();
  collectives_.clear();
  next_.buffers.clear();  // before the memory that they write
  next_ = {};
  spare_.clear();
  spare_scratch_.clear();
  context_.reset();
  watchdog_.reset();
}

void GlooTransport::Impl::post(const Posting& posting) {
  const NoSigpipe quiet;
  throw_failure(posting.op, &posting);
  if (posting.ticket >= kDepth) wait_released(posting.ticket - kDepth);
  posted_ = posting.ticket + 1;
  auto entry = std::make_unique<Collective>();
  Collective& c = *entry;
  c.posting = posting;
  c.incoming = await_messages(posting.ticket);
  c.checked.assign(Index(size_), false);
  c.sent = Messages(rank_, size_, is_inline(posting.bytes) ? posting.bytes : 0);
  c.out.resize(Index(size_));
  const bool follows = !is_inline(posting.bytes);
  if (follows) {
    c.data = context_->createUnboundBuffer(
        const_cast<char*>(posting.data),
        static_cast<std::size_t>(posting.stride * (size_ - 1) + posting.bytes));
    c.scratch = take_scratch(room(posting) * (size_ - 1));
    c.arriving.resize(Index(size_));
  }
  for (int k = 1; k < size_; ++k) {
    const int peer = (rank_ + k) % size_;
    new (c.sent.of(peer)) Header(posting);
    std::size_t bytes = sizeof(Header);
    if (posting.bytes > 0 && !follows) {
      std::memcpy(c.sent.data(peer), posting.data + peer * posting.stride, Index64(posting.bytes));
      bytes += Index64(posting.bytes);
    }
    auto& out = c.out[Index(peer)] = context_->createUnboundBuffer(c.sent.of(peer), bytes);
    guarded(posting, peer, [&] {
      const std::string& error = c.incoming.errors[Index(peer)];
      if (!error.empty()) throw ::gloo::IoException(error);
      out->send(peer, slot_of(posting.ticket, 0));
      for (std::int64_t begin = 0; follows && begin < posting.bytes; begin += piece(posting))
        c.data->send(peer, slot_of(posting.ticket, 1), Index64(peer * posting.stride + begin),
                     Index64(std::min(piece(posting), posting.bytes - begin)));
    });
  }
  next_ = await_messages(posting.ticket + 1);
  const std::lock_guard lock(mutex_);
  collectives_.emplace(posting.ticket, std::move(entry));
}

const char* GlooTransport::Impl::view(const Posting& mine, int peer, std::int64_t begin) {
  Collective& c = at(mine.ticket);
  check_header(c, peer);
  if (is_inline(mine.bytes)) return c.incoming.messages.data(peer) + begin;
  const std::int64_t place = peer < rank_ ? peer : peer - 1, two = 2 * piece(mine);
  char* const to = static_cast<char*>(c.scratch.raw_data()) + place * room(mine);
  auto& buffer = c.arriving[Index(peer)];
  if (begin == 0) {
    buffer = context_->createUnboundBuffer(to, Index64(room(mine)));
    await_piece(c, peer, 0);
  }
  await_piece(c, peer, begin + piece(mine));  // where the one before this was
  wait(mine, peer, *buffer, [&] { return buffer->waitRecv(kForever); });
  return to + begin % two;
}

// Small enough that most are summed or copied while more is on its way, and that two stay in a
// core's cache; large enough that the way through the system costs little beside the bytes.
std::int64_t GlooTransport::Impl::piece(const Posting& p) const {
  if (is_inline(p.bytes)) return p.bytes;
  return std::min(p.bytes, std::clamp(p.bytes / 8 / 64 * 64, kLeastPiece, kMostPiece));
}

Tensor GlooTransport::Impl::take_scratch(std::int64_t bytes) {
  Tensor spare;
  {
    const std::lock_guard lock(mutex_);
    if (!spare_scratch_.empty()) {
      spare = std::move(spare_scratch_.back());
      spare_scratch_.pop_back();
    }
  }
  if (spare.defined() && spare.bytes() >= bytes) return spare;
  spare = {};
  const Scoped kind(current_rank().kind, Kind::buffers);
  return Tensor::empty({bytes}, DType::u8, kCpu);
}

// Its memory serves the next ones. Nothing is freed here: this may be the comm thread, whose ledger
// is another.
void GlooTransport::Impl::finish(std::uint64_t ticket) {
  Collective& c = at(ticket);
  c.arriving.clear();
  c.incoming.buffers.clear();
  const std::lock_guard lock(mutex_);
  spare_.push_back(std::move(c.incoming.messages));
  if (c.scratch.defined()) spare_scratch_.push_back(std::move(c.scratch));
}

void GlooTransport::Impl::wait_released(std::uint64_t ticket) {
  const std::lock_guard releasing(releasing_);
  const auto it = [&] {
    const std::lock_guard lock(mutex_);
    return collectives_.find(ticket);
  }();
  if (it == collectives_.end()) return;
  Collective& c = *it->second;
  const auto sent = [&](Buffer& b) {
    wait(c.posting, -1, b, [&] { return b.waitSend(kForever); });
  };
  for (const auto& out : c.out)
    if (out != nullptr) sent(*out);
  if (c.data != nullptr) {
    const std::int64_t pieces = (c.posting.bytes + piece(c.posting) - 1) / piece(c.posting);
    for (std::int64_t k = 0; k < pieces * (size_ - 1); ++k) sent(*c.data);
  }
  const std::lock_guard lock(mutex_);
  collectives_.erase(it);
}

Messages GlooTransport::Impl::messages() {
  {
    const std::lock_guard lock(mutex_);
    if (!spare_.empty()) {
      Messages reused = std::move(spare_.back());
      spare_.pop_back();
      return reused;
    }
  }
  return {rank_, size_, Messages::most_inline(size_)};
}

GlooTransport::Impl::Incoming GlooTransport::Impl::await_messages(std::uint64_t ticket) {
  if (next_.ticket == ticket) return std::exchange(next_, {});
  Incoming incoming{.ticket = ticket, .messages = messages(), .buffers = {}, .errors = {}};
  incoming.buffers.resize(Index(size_));
  incoming.errors.resize(Index(size_));
  for (int peer = 0; peer < size_; ++peer) {
    if (peer == rank_) continue;
    auto& buffer = incoming.buffers[Index(peer)];
    buffer = context_->createUnboundBuffer(incoming.messages.of(peer), incoming.messages.room());
    try {
      buffer->recv(peer, slot_of(ticket, 0));
    } catch (const ::gloo::Exception& error) {  // a peer has gone: told if there is a next one
      incoming.errors[Index(peer)] = error.what();
    }
  }
  return incoming;
}

void GlooTransport::Impl::await_piece(Collective& c, int peer, std::int64_t begin) {
  const std::int64_t bytes = std::min(piece(c.posting), c.posting.bytes - begin);
  if (bytes <= 0) return;
  const NoSigpipe quiet;  // a receive tells the peer that there is room
  guarded(c.posting, peer, [&] {
    c.arriving[Index(peer)]->recv(peer, slot_of(c.posting.ticket, 1),
                                  Index64(begin % (2 * piece(c.posting))), Index64(bytes));
  });
}

GlooTransport::Impl::Collective& GlooTransport::Impl::at(std::uint64_t ticket) {
  const std::lock_guard lock(mutex_);
  return *collectives_.at(ticket);
}

void GlooTransport::Impl::check_header(Collective& c, int peer) {
  const std::size_t p = Index(peer);
  if (c.checked[p]) return;
  Buffer& buffer = *c.incoming.buffers[p];
  wait(c.posting, peer, buffer, [&] { return buffer.waitRecv(kForever); });
  c.checked[p] = true;
  const Posting theirs = c.incoming.messages.header(peer).posting();
  {
    const std::lock_guard lock(mutex_);
    last_[p] = describe(theirs);
  }
  check_same(c.posting, rank_, theirs, peer);
}

GlooTransport::GlooTransport(StoreClient& store, const std::string& address, int rank, int size,
                             std::chrono::milliseconds deadline)
    : impl_(std::make_unique<Impl>(store, address, rank, size, deadline)) {}
GlooTransport::~GlooTransport() = default;
int GlooTransport::rank() const { return impl_->rank(); }
int GlooTransport::size() const { return impl_->size(); }
void GlooTransport::post(const Posting& posting) { impl_->post(posting); }
const char* GlooTransport::view(const Posting& mine, int peer, std::int64_t begin, MarkPtr*) {
  return impl_->view(mine, peer, begin);
}
std::int64_t GlooTransport::piece(const Posting& posting) const { return impl_->piece(posting); }
// What is received lies in this process, and what was sent is not read again: peers need no word.
void GlooTransport::finish(const Posting& mine, const MarkPtr&) { impl_->finish(mine.ticket); }
void GlooTransport::wait_released(const Posting& mine, std::vector<MarkPtr>*) {
  impl_->wait_released(mine.ticket);
}
void GlooTransport::leave() { impl_->leave(); }
void GlooTransport::poison(const std::string& cause) { impl_->poison(cause); }
std::string GlooTransport::failure() const { return impl_->failure(); }
int GlooTransport::gone() const { return impl_->first_peer(true); }
int GlooTransport::at_work() const { return impl_->first_peer(false); }
std::string GlooTransport::whereabouts() const { return impl_->whereabouts(); }
void GlooTransport::close() { impl_->close(); }

}  // namespace sg::dist
