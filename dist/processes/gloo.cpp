#include "dist/processes/gloo.h"

#include <gloo/common/error.h>
#include <gloo/transport/unbound_buffer.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "core/check.h"
#include "dist/processes/mesh.h"
#include "dist/processes/message.h"
#include "dist/processes/sigpipe.h"
#include "dist/processes/watchdog.h"

namespace sg::dist {
namespace {

using Clock = std::chrono::steady_clock;
using Buffer = ::gloo::transport::UnboundBuffer;
using std::chrono::milliseconds;

constexpr milliseconds kForever = std::chrono::hours(24 * 365);
constexpr milliseconds kVerdict{1500};  // how long the store may take to tell who died
constexpr milliseconds kGlance{5};      // for a look at what may have come
constexpr std::size_t kSpare = 8;       // places for messages that are kept for reuse
constexpr std::int64_t kLeastPiece = 256 << 10, kMostPiece = 1 << 20;  // bytes

}  // namespace

class GlooTransport::Impl {
 public:
  Impl(StoreClient& store, const std::string& address, int rank, int size, milliseconds deadline)
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
      context_->connect(store, deadline);
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
  ~Impl() { close(); }

  void close() {
    if (context_ == nullptr) return;
    const NoSigpipe quiet;
    store_.on_event({});
    watchdog_->interrupt();
    context_->closeConnections();
    collectives_.clear();
    next_.buffers.clear();  // before the memory that they write
    next_ = {};
    spare_.clear();
    context_.reset();
    watchdog_.reset();
  }

  void post(const Posting& posting) {
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
      const Scoped kind(current_rank().kind, Kind::buffers);
      c.scratch = Tensor::empty({room(posting) * (size_ - 1)}, DType::u8, kCpu);
      c.arriving.resize(Index(size_));
    }
    for (int k = 1; k < size_; ++k) {
      const int peer = (rank_ + k) % size_;
      new (c.sent.of(peer)) Header(posting);
      std::size_t bytes = sizeof(Header);
      if (posting.bytes > 0 && !follows) {
        std::memcpy(c.sent.data(peer), posting.data + peer * posting.stride,
                    Index64(posting.bytes));
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

  const char* view(const Posting& mine, int peer, std::int64_t begin) {
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
  std::int64_t piece(const Posting& p) const {
    if (is_inline(p.bytes)) return p.bytes;
    return std::min(p.bytes, std::clamp(p.bytes / 8 / 64 * 64, kLeastPiece, kMostPiece));
  }

  // Peers have read what has left this process: its memory may change.
  void wait_released(std::uint64_t ticket) {
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
    // A collective that nobody finished may still receive.
    if (spare_.size() < kSpare && std::count(c.checked.begin(), c.checked.end(), true) == size_ - 1)
      spare_.push_back(std::move(c.incoming.messages));
    const std::lock_guard lock(mutex_);
    collectives_.erase(it);
  }

  void leave() { store_.leave(posted_); }
  // First here: this rank's own collectives end without the store's word, too.
  void poison(const std::string& cause) {
    {
      const std::lock_guard lock(mutex_);
      if (own_failure_.empty()) own_failure_ = cause;
    }
    poisoned_ = true;
    watchdog_->interrupt();
    store_.fail(cause);
  }
  std::string failure() const {
    {
      const std::lock_guard lock(mutex_);
      if (!own_failure_.empty()) return fmt::format("rank {}: {}", rank_, own_failure_);
    }
    const std::optional<Failure> failure = store_.failure();
    return failure ? fmt::format("rank {}: {}", failure->rank, failure->text) : std::string();
  }
  int gone() const {
    for (int r = 0; r < size_; ++r)
      if (r != rank_ && store_.left(r)) return r;
    return -1;
  }
  // By the headers that were looked at.
  std::string whereabouts() const {
    std::string places;
    for (int r = 0; r < size_; ++r)
      if (r != rank_) places += fmt::format("; rank {} last entered {}", r, last_entered(r));
    return places;
  }
  int rank() const { return rank_; }
  int size() const { return size_; }

 private:
  // Where the peers' messages of one collective arrive.
  struct Incoming {
    std::uint64_t ticket = ~std::uint64_t{0};
    Messages messages;
    std::vector<std::unique_ptr<Buffer>> buffers;  // one a peer
    std::vector<std::string> errors;               // one a peer: why none will ever come
  };
  struct Collective {
    Posting posting;
    Incoming incoming;
    std::vector<char> checked;  // a peer's message has come and was looked at
    Messages sent;
    std::vector<std::unique_ptr<Buffer>> out;       // one a peer
    std::unique_ptr<Buffer> data;                   // what follows the messages
    Tensor scratch;                                 // room for two pieces of each peer
    std::vector<std::unique_ptr<Buffer>> arriving;  // one a peer, over its part of that
  };

  static std::size_t Index(int i) { return static_cast<std::size_t>(i); }
  static std::size_t Index64(std::int64_t i) { return static_cast<std::size_t>(i); }
  static std::uint64_t slot_of(std::uint64_t ticket, std::uint64_t part) {
    return 2 * ticket + part;
  }
  bool is_inline(std::int64_t bytes) const { return bytes <= Messages::most_inline(size_); }

  Messages messages() {
    if (spare_.empty()) return {rank_, size_, Messages::most_inline(size_)};
    Messages reused = std::move(spare_.back());
    spare_.pop_back();
    return reused;
  }

  // Those of the next collective are awaited before it begins: a peer's message then leaves at
  // once, instead of after an announcement and an answer.
  Incoming await_messages(std::uint64_t ticket) {
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

  // Bytes of scratch a peer.
  std::int64_t room(const Posting& p) const { return std::min(p.bytes, 2 * piece(p)); }

  void await_piece(Collective& c, int peer, std::int64_t begin) {
    const std::int64_t bytes = std::min(piece(c.posting), c.posting.bytes - begin);
    if (bytes <= 0) return;
    const NoSigpipe quiet;  // a receive tells the peer that there is room
    guarded(c.posting, peer, [&] {
      c.arriving[Index(peer)]->recv(peer, slot_of(c.posting.ticket, 1),
                                    Index64(begin % (2 * piece(c.posting))), Index64(bytes));
    });
  }

  Collective& at(std::uint64_t ticket) {
    const std::lock_guard lock(mutex_);
    return *collectives_.at(ticket);
  }

  void check_header(Collective& c, int peer) {
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

  // Runs `f`, which is true when it is done and false when it was interrupted, until it is done.
  template <class F>
  void wait(const Posting& mine, int peer, Buffer& buffer, F f) {
    const Watchdog::Watch watch(*watchdog_, buffer);
    guarded(mine, peer, [&] {
      for (;;) {
        if (watch.expired()) throw_deadline(mine, peer);
        throw_failure(mine.op, &mine);
        throw_left(mine, peer);
        if (f()) return;
      }
    });
  }

  // Gloo's exceptions say that a connection broke. The store knows why.
  template <class F>
  void guarded(const Posting& mine, int peer, F f) {
    std::string text;
    try {
      return f();
    } catch (const ::gloo::Exception& error) {
      text = error.what();
    }
    const Clock::time_point start = Clock::now();
    while (Clock::now() - start < kVerdict) {
      throw_failure(mine.op, &mine);
      throw_left(mine, peer);
      std::this_thread::sleep_for(milliseconds(10));
    }
    fail("[{}] rank {} lost its connection{} in {}: {}", mine.op, rank_,
         peer >= 0 ? fmt::format(" to rank {}", peer) : "", describe(mine), text);
  }

  void throw_failure(const char* op, const Posting* mine) {
    const std::string in = mine != nullptr ? " in " + describe(*mine) : "";
    if (poisoned_) {
      const std::lock_guard lock(mutex_);
      fail("[{}] rank {} stopped{} because it failed itself: {}", op, rank_, in, own_failure_);
    }
    const std::optional<Failure> failure = store_.failure();
    if (!failure) return;
    if (failure->rank == rank_)
      fail("[{}] rank {} stopped{} because the store gave it up: {}", op, rank_, in, failure->text);
    if (mine != nullptr) {
      look_around(*mine);
      // It may have failed because it found what this rank is about to find: both say both.
      if (const auto theirs = entered(mine->ticket, failure->rank))
        check_same(*mine, rank_, *theirs, failure->rank);
    }
    const std::string lost = fmt::format("rank {} lost", failure->rank);
    if (!failure->text.starts_with(lost))
      fail("[{}] rank {} stopped{} because another rank failed: rank {}: {}", op, rank_, in,
           failure->rank, failure->text);
    // The place is where this rank misses it; what it did itself is known by its last header.
    const std::string where = mine == nullptr
                                  ? ""
                                  : fmt::format("{}, where rank {} is; rank {} last entered {}", in,
                                                rank_, failure->rank, last_entered(failure->rank));
    fail("[{}] {}{}{}", op, lost, where, failure->text.substr(lost.size()));
  }

  // `peer` of -1: any of them, as all read what this rank posted.
  void throw_left(const Posting& mine, int peer) {
    for (int r = 0; r < size_; ++r) {
      if (r == rank_ || (peer >= 0 && r != peer)) continue;
      const std::optional<std::uint64_t> count = store_.left(r);
      SG_CHECK(
          !count || *count > mine.ticket,
          "[{}] rank {} waits for rank {} in collective {}, but rank {} has ended; every rank must "
          "run the same steps",
          mine.op, rank_, r, mine.sequence, r);
    }
  }

  // What `peer` posted as that collective, if its header has come and was looked at.
  std::optional<Posting> entered(std::uint64_t ticket, int peer) {
    const std::lock_guard lock(mutex_);
    const auto it = collectives_.find(ticket);
    if (it == collectives_.end() || !it->second->checked[Index(peer)]) return {};
    return it->second->incoming.messages.header(peer).posting();
  }

  std::string last_entered(int peer) const {
    const std::lock_guard lock(mutex_);
    const std::string& place = last_[Index(peer)];
    return place.empty() ? "nothing" : place;
  }

  // A header of this collective may have come while another rank was waited for. Whether it has,
  // Gloo alone can say: its thread writes into those that have not. For a collective that ends with
  // an error: the headers that were found are not checked any more.
  void look_around(const Posting& mine) {
    Collective* c = nullptr;
    {
      const std::lock_guard lock(mutex_);
      if (const auto it = collectives_.find(mine.ticket); it != collectives_.end())
        c = it->second.get();
    }
    if (c == nullptr) return;
    std::atomic<Buffer*> asked{nullptr};
    std::atomic<bool> done{false};
    std::thread impatient([&] {
      while (!done) {
        std::this_thread::sleep_for(kGlance);
        if (Buffer* buffer = asked) buffer->abortWaitRecv();
      }
    });
    for (int r = 0; r < size_; ++r) {
      const std::size_t p = Index(r);
      if (r == rank_ || c->checked[p]) continue;
      Buffer& buffer = *c->incoming.buffers[p];
      asked = &buffer;
      try {
        if (!buffer.waitRecv(kForever)) continue;
      } catch (const ::gloo::Exception&) {
        continue;
      }
      c->checked[p] = true;
      const std::lock_guard lock(mutex_);
      last_[p] = describe(c->incoming.messages.header(r).posting());
    }
    done = true;
    impatient.join();
  }

  [[noreturn]] void throw_deadline(const Posting& mine, int peer) {
    look_around(mine);
    fail("[{}] rank {} waited {} ms for {} in {}{}; every rank must run the same steps", mine.op,
         rank_, deadline_.count(),
         peer >= 0 ? fmt::format("rank {}", peer) : std::string("its readers"), describe(mine),
         whereabouts());
  }

  StoreClient& store_;
  const int rank_, size_;
  const milliseconds deadline_;
  std::shared_ptr<Mesh> context_;
  std::unique_ptr<Watchdog> watchdog_;
  mutable std::mutex mutex_;
  std::mutex releasing_;
  std::map<std::uint64_t, std::unique_ptr<Collective>> collectives_;  // by ticket
  std::vector<std::string> last_;  // what each peer's last header said
  std::atomic<bool> poisoned_{false};
  std::string own_failure_;
  std::uint64_t posted_ = 0;
  Incoming next_;
  std::vector<Messages> spare_;
};

GlooTransport::GlooTransport(StoreClient& store, const std::string& address, int rank, int size,
                             milliseconds deadline)
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
void GlooTransport::finish(const Posting&, const MarkPtr&) {}
void GlooTransport::wait_released(const Posting& mine, std::vector<MarkPtr>*) {
  impl_->wait_released(mine.ticket);
}
void GlooTransport::leave() { impl_->leave(); }
void GlooTransport::poison(const std::string& cause) { impl_->poison(cause); }
std::string GlooTransport::failure() const { return impl_->failure(); }
int GlooTransport::gone() const { return impl_->gone(); }
std::string GlooTransport::whereabouts() const { return impl_->whereabouts(); }
void GlooTransport::close() { impl_->close(); }

}  // namespace sg::dist
