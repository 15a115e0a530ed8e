#include "dist/comm/threads.h"

#include "core/check.h"

namespace sg::dist {
namespace {

using Clock = std::chrono::steady_clock;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

class ThreadTransport final : public Transport {
 public:
  ThreadTransport(ThreadWorld& world, int rank) : world_(world), rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return world_.size_; }

  void post(const Posting& posting) override {
    // The ring bounds how far a rank may run ahead of the slowest reader.
    if (posting.ticket >= ThreadWorld::kRing)
      wait_released(posting.ticket - ThreadWorld::kRing, nullptr);
    ThreadWorld::Slot& slot = slot_of(rank_, posting.ticket);
    slot.posting = posting;
    slot.posted.store(posting.ticket + 1);
    world_.wake_peers(rank_);
  }

  const char* view(const Posting& mine, int peer, std::int64_t begin, MarkPtr* written) override {
    ThreadWorld::Slot& slot = slot_of(peer, mine.ticket);
    wait([&] { return slot.posted.load() > mine.ticket; }, mine.op, mine.ticket, mine.sequence,
         peer);
    const Posting& theirs = slot.posting;
    check_same(mine, rank_, theirs, peer);
    SG_CHECK(mine.device == theirs.device,
             "[{}] rank {} works on {}, rank {} on {}; the ranks of a process share one device",
             mine.op, rank_, name_of(mine.device), peer, name_of(theirs.device));
    if (written != nullptr) *written = theirs.written;
    return theirs.data + theirs.stride * rank_ + begin;
  }

  // A peer's memory is all there at once.
  std::int64_t piece(const Posting& posting) const override { return posting.bytes; }

  void finish(const Posting& mine, const MarkPtr& read) override {
    for (int peer = 0; peer < world_.size_; ++peer) {
      if (peer == rank_) continue;
      ThreadWorld::Slot& slot = slot_of(peer, mine.ticket);
      if (read != nullptr) {
        const std::lock_guard lock(slot.mutex);
        slot.read.push_back(read);
      }
      slot.readers.fetch_add(1);
    }
    world_.wake_peers(rank_);
  }

  void wait_released(const Posting& mine, std::vector<MarkPtr>* read) override {
    wait_released(mine.ticket, read);
  }

  bool carries(Device) const override { return true; }

  void leave() override {
    world_.seats_[static_cast<std::size_t>(rank_)]->left.store(true);
    world_.wake_peers(rank_);
  }

  void poison(const std::string& cause) override { world_.poison(rank_, cause); }
  std::string failure() const override {
    return world_.poisoned_.load() ? world_.cause() : std::string();
  }

  int gone() const override { return first_peer(true); }
  int at_work() const override { return first_peer(false); }

  void entered(const Posting& posting) override {
    ThreadWorld::Seat& seat = *world_.seats_[static_cast<std::size_t>(rank_)];
    const std::lock_guard lock(seat.place_mutex);
    seat.place = posting;
    seat.place.written = nullptr;
  }

  std::string whereabouts() const override {
    std::string text;
    for (int r = 0; r < world_.size_; ++r) {
      if (r == rank_) continue;
      const ThreadWorld::Seat& seat = *world_.seats_[static_cast<std::size_t>(r)];
      const std::lock_guard lock(seat.place_mutex);
      text += fmt::format("; rank {} {}", r,
                          seat.left.load()         ? std::string("has ended")
                          : *seat.place.op == '\0' ? std::string("entered none")
                                                   : "last entered " + describe(seat.place));
    }
    return text;
  }

 private:
  int first_peer(bool left) const {
    for (int r = 0; r < world_.size_; ++r)
      if (r != rank_ && world_.seats_[static_cast<std::size_t>(r)]->left.load() == left) return r;
    return -1;
  }

  void wait_released(std::uint64_t ticket, std::vector<MarkPtr>* read) {
    ThreadWorld::Slot& slot = slot_of(rank_, ticket);
    const std::uint64_t uses = ticket / ThreadWorld::kRing + 1;
    const std::uint64_t wanted = uses * static_cast<std::uint64_t>(world_.size_ - 1);
    wait([&] { return slot.readers.load() >= wanted; }, "release", ticket, slot.posting.sequence,
         -1);
    if (read == nullptr) return;
    const std::lock_guard lock(slot.mutex);
    *read = std::move(slot.read);
    slot.read.clear();
  }

  ThreadWorld::Slot& slot_of(int rank, std::uint64_t ticket) {
    return world_.seats_[static_cast<std::size_t>(rank)]->slots[ticket % ThreadWorld::kRing];
  }

  void check_poison() {
    if (world_.poisoned_.load())
      fail("[rank {}] stopped because another rank failed: {}", rank_, world_.cause());
  }

  // The peer (-1: any) that left before it posted `ticket`: it will neither post it nor read this
  // rank's. -1: none.
  int missing_peer(std::uint64_t ticket, int peer) {
    for (int r = 0; r < world_.size_; ++r) {
      if (r == rank_ || (peer >= 0 && r != peer)) continue;
      if (world_.seats_[static_cast<std::size_t>(r)]->left.load() &&
          slot_of(r, ticket).posted.load() <= ticket)
        return r;
    }
    return -1;
  }

  template <class Ready>
  void wait(Ready ready, const char* op, std::uint64_t ticket, std::uint64_t sequence, int peer) {
    if (ready()) return;
    check_poison();
    const Clock::time_point start = Clock::now();
    if (world_.options_.spin.count() > 0) {
      do {
        for (int i = 0; i < 32; ++i) pause();
        if (ready()) return;
      } while (Clock::now() - start < world_.options_.spin);
    }
    ThreadWorld::Seat& seat = *world_.seats_[static_cast<std::size_t>(rank_)];
    seat.waiting_at.store(sequence);
    seat.waiting_in.store(op);
    std::unique_lock lock(seat.mutex);
    // Sequentially consistent with the waker: either it sees `asleep`, or this sees what it stored
    // before.
    seat.asleep.fetch_add(1);
    int missing = -1;
    const auto awake = [&] {
      if (ready() || world_.poisoned_.load()) return true;
      missing = missing_peer(ticket, peer);
      return missing >= 0;
    };
    bool in_time = true;
    if (world_.options_.deadline.count() > 0)
      in_time = seat.wake.wait_until(lock, start + world_.options_.deadline, awake);
    else
      seat.wake.wait(lock, awake);
    seat.asleep.fetch_sub(1);
    lock.unlock();
    if (ready()) return;
    seat.waiting_in.store(nullptr);
    if (in_time) check_poison();
    SG_CHECK(missing < 0,
             "[{}] rank {} waits for rank {} in collective {}, but rank {} has ended; "
             "every rank must run the same steps",
             op, rank_, missing, sequence, missing);
    fail("[{}] rank {} waited {} ms for {} in collective {}; {}", op, rank_,
         world_.options_.deadline.count(),
         peer >= 0 ? fmt::format("rank {}", peer) : std::string("its readers"), sequence,
         waits_of_others());
  }

  std::string waits_of_others() const {
    std::string text;
    for (int r = 0; r < world_.size_; ++r) {
      if (r == rank_) continue;
      const ThreadWorld::Seat& seat = *world_.seats_[static_cast<std::size_t>(r)];
      const char* in = seat.asleep.load() > 0 ? seat.waiting_in.load() : nullptr;
      text += in != nullptr ? fmt::format("rank {} waits in {} of collective {}; ", r, in,
                                          seat.waiting_at.load())
                            : fmt::format("rank {} is in no collective; ", r);
    }
    return text + "every rank must run the same steps";
  }

  ThreadWorld& world_;
  const int rank_;
};

std::unique_ptr<Transport> ThreadWorld::transport(int rank) {
  return std::make_unique<ThreadTransport>(*this, rank);
}

}  // namespace sg::dist
