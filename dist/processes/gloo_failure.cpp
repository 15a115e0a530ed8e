// How a wait ends that nobody will answer: a rank that failed, left or is late, and a connection
// that broke, which the store knows the cause of.
#include <thread>

#include "core/check.h"
#include "dist/processes/gloo_impl.h"

namespace sg::dist {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kVerdict{1500};  // how long the store may take to tell who died
constexpr std::chrono::milliseconds kGlance{5};      // for a look at what may have come

}  // namespace

// First here: this rank's own collectives end without the store's word, too.
void GlooTransport::Impl::poison(const std::string& cause) {
  {
    const std::lock_guard lock(mutex_);
    if (own_failure_.empty()) own_failure_ = cause;
  }
  poisoned_ = true;
  watchdog_->interrupt();
  store_.fail(cause);
}

std::string GlooTransport::Impl::failure() const {
  {
    const std::lock_guard lock(mutex_);
    if (!own_failure_.empty()) return fmt::format("rank {}: {}", rank_, own_failure_);
  }
  const std::optional<Failure> failure = store_.failure();
  return failure ? fmt::format("rank {}: {}", failure->rank, failure->text) : std::string();
}

int GlooTransport::Impl::first_peer(bool left) const {
  for (int r = 0; r < size_; ++r)
    if (r != rank_ && store_.left(r).has_value() == left) return r;
  return -1;
}

std::string GlooTransport::Impl::whereabouts() const {
  std::string places;
  for (int r = 0; r < size_; ++r)
    if (r != rank_) places += fmt::format("; rank {} last entered {}", r, last_entered(r));
  return places;
}

void GlooTransport::Impl::throw_broken(const Posting& mine, int peer, const std::string& text) {
  const Clock::time_point start = Clock::now();
  while (Clock::now() - start < kVerdict) {
    throw_failure(mine.op, &mine);
    throw_left(mine, peer);
    std::this_thread::sleep_for(milliseconds(10));
  }
  fail("[{}] rank {} lost its connection{} in {}: {}", mine.op, rank_,
       peer >= 0 ? fmt::format(" to rank {}", peer) : "", describe(mine), text);
}

void GlooTransport::Impl::throw_deadline(const Posting& mine, int peer) {
  look_around(mine);
  fail("[{}] rank {} waited {} ms for {} in {}{}; every rank must run the same steps", mine.op,
       rank_, deadline_.count(),
       peer >= 0 ? fmt::format("rank {}", peer) : std::string("its readers"), describe(mine),
       whereabouts());
}

void GlooTransport::Impl::throw_failure(const char* op, const Posting* mine) {
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
  const std::optional<std::string> loss = failure->loss();
  if (!loss)
    fail("[{}] rank {} stopped{} because another rank failed: rank {}: {}", op, rank_, in,
         failure->rank, failure->text);
  // The place is where this rank misses it; what it did itself is known by its last header.
  const std::string where = mine == nullptr
                                ? ""
                                : fmt::format("{}, where rank {} is; rank {} last entered {}", in,
                                              rank_, failure->rank, last_entered(failure->rank));
  fail("[{}] rank {} lost{}: {}", op, failure->rank, where, *loss);
}

void GlooTransport::Impl::throw_left(const Posting& mine, int peer) {
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

std::optional<Posting> GlooTransport::Impl::entered(std::uint64_t ticket, int peer) {
  const std::lock_guard lock(mutex_);
  const auto it = collectives_.find(ticket);
  if (it == collectives_.end()) return {};
  const Collective& c = *it->second;
  if (!c.checked[Index(peer)] || !c.incoming.messages.defined()) return {};
  return c.incoming.messages.header(peer).posting();
}

std::string GlooTransport::Impl::last_entered(int peer) const {
  const std::lock_guard lock(mutex_);
  const std::string& place = last_[Index(peer)];
  return place.empty() ? "nothing" : place;
}

// A header of this collective may have come while another rank was waited for. Whether it has,
// Gloo alone can say: its thread writes into those that have not. For a collective that ends with
// an error: the headers that were found are not checked any more.
void GlooTransport::Impl::look_around(const Posting& mine) {
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

}  // namespace sg::dist
