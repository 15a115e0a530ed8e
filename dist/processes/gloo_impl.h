// The transport of dist/processes/gloo.h. gloo.cpp holds what it does, gloo_failure.cpp how a wait
// ends that nobody will answer.
#pragma once

#include <gloo/common/error.h>
#include <gloo/transport/unbound_buffer.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "dist/processes/gloo.h"
#include "dist/processes/mesh.h"
#include "dist/processes/message.h"
#include "dist/processes/watchdog.h"

namespace sg::dist {

class GlooTransport::Impl {
 public:
  using milliseconds = std::chrono::milliseconds;

  Impl(StoreClient& store, const std::string& address, int rank, int size, milliseconds deadline);
  ~Impl() { close(); }

  void close();
  void post(const Posting& posting);
  const char* view(const Posting& mine, int peer, std::int64_t begin);
  std::int64_t piece(const Posting& p) const;
  // All of it has come and was used.
  void finish(std::uint64_t ticket);
  // Peers have read what has left this process: its memory may change.
  void wait_released(std::uint64_t ticket);
  void leave() { store_.leave(posted_); }
  void poison(const std::string& cause);
  std::string failure() const;
  // One that has left, or has not; -1 for none.
  int first_peer(bool left) const;
  // By the headers that were looked at.
  std::string whereabouts() const;
  int rank() const { return rank_; }
  int size() const { return size_; }

 private:
  using Buffer = ::gloo::transport::UnboundBuffer;
  static constexpr milliseconds kForever = std::chrono::hours(24 * 365);

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

  Messages messages();
  // Those of the next collective are awaited before it begins: a peer's message then leaves at
  // once, instead of after an announcement and an answer.
  Incoming await_messages(std::uint64_t ticket);
  // Bytes of scratch a peer.
  std::int64_t room(const Posting& p) const { return std::min(p.bytes, 2 * piece(p)); }
  Tensor take_scratch(std::int64_t bytes);
  void await_piece(Collective& c, int peer, std::int64_t begin);
  Collective& at(std::uint64_t ticket);
  void check_header(Collective& c, int peer);

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
    throw_broken(mine, peer, text);
  }

  // `peer` of -1: any of them, as all read what this rank posted.
  [[noreturn]] void throw_broken(const Posting& mine, int peer, const std::string& text);
  [[noreturn]] void throw_deadline(const Posting& mine, int peer);
  void throw_failure(const char* op, const Posting* mine);
  void throw_left(const Posting& mine, int peer);
  // What `peer` posted as that collective, if its header has come and was looked at, and the
  // collective is not finished.
  std::optional<Posting> entered(std::uint64_t ticket, int peer);
  std::string last_entered(int peer) const;
  void look_around(const Posting& mine);

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
  // Of collectives that are finished: of as many as ever overlap.
  std::vector<Messages> spare_;
  std::vector<Tensor> spare_scratch_;
};

}  // namespace sg::dist
