// A rank's end of the store: keys and values, and the news of the job.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "core/check.h"
#include "dist/processes/store_protocol.h"
#include "dist/processes/store_socket.h"

namespace sg::dist {

/// Nobody listens in time, or what does is not this job's store, or still that of an attempt which
/// has failed: it is worth asking where it is.
class StoreNotFound : public Error {
 public:
  using Error::Error;
};

/// One connection and a thread that reads it. All functions may be called from any thread, but
/// those that wait not from on_event's function, nor with a lock held that this function takes: the
/// reading thread runs it, and brings the replies. A timeout of 0 is no limit. Errors begin with
/// [store].
class StoreClient {
 public:
  using milliseconds = std::chrono::milliseconds;

  /// Connects, proves the token and joins. While nobody listens yet, or what listens is the store
  /// of an attempt before this one, which has failed, it tries again, until the deadline. Refused
  /// at once, with both values: another version, token, job, world size or configuration; a rank
  /// that is out of range or has joined already. StoreNotFound: nobody listens, or what does speaks
  /// otherwise, or with another token, or for a failed attempt; after `search` already, if that is
  /// not 0 (a store that has proven to be the job's has until the deadline to answer).
  StoreClient(const std::string& address, int port, JobIdentity identity, milliseconds deadline,
              milliseconds search = milliseconds(0));
  /// Without leave() before it, the others see this rank lost.
  ~StoreClient();

  /// Returns when the store has it. A key may be set again. Errors: longer than store::kMaxKey or
  /// store::kMaxValue bytes, the store is full or lost.
  void set(const std::string& key, const std::vector<char>& value);
  /// Waits until the key is there. Errors: the timeout (names key and seconds), the job failed.
  std::vector<char> get(const std::string& key, milliseconds timeout);
  /// As get, for all the keys and without the values.
  void wait(const std::vector<std::string>& keys, milliseconds timeout);
  /// Waits until all ranks of the job have joined. Errors: the timeout, the job failed.
  void wait_all_joined(milliseconds timeout);

  /// Tells all ranks that this one failed; the first failure of the job counts, of a long text the
  /// first store::kMaxText bytes. Never throws, and waits 10 s at most; failure() holds
  /// something when it returns.
  void fail(const std::string& text) noexcept;
  /// A clean end: this rank may go now without being missed. `postings`: collectives it posted.
  /// Never throws, and waits 10 s at most: if the store is lost, failure() says so.
  void leave(std::uint64_t postings) noexcept;

  /// The job's first failure as the store decided; or rank 0's, which holds the store, if the
  /// connection to it is lost before this rank has left.
  std::optional<Failure> failure() const;
  /// The postings of a rank that has left.
  std::optional<std::uint64_t> left(int rank) const;
  /// Called on the reading thread (or by a fail() or leave() that finds the store lost) after
  /// failure() or left() changed, and at once here if they hold something. It replaces the one
  /// before, which is not running any more when this returns; {} for none. It must be quick, and
  /// must not call on_event.
  void on_event(std::function<void()> event);
  /// This host's address on the way to the store, in numbers: by it other hosts reach this one.
  std::string local_address() const { return local_address_; }

 private:
  bool handshake(const store::Deadline& found, const store::Deadline& deadline, std::string& why,
                 std::string& over);
  bool receive_front(std::size_t bytes, const store::Deadline& deadline, std::string& why);
  void read();
  bool read_messages(std::size_t& count);
  void take(store::Message&& message);
  void lose(const std::string& why);
  void tell();

  /// Sends the messages and waits for all replies; `what(i)` begins the texts of errors about the
  /// i-th: "get of 'key'". `of_all`: the deadline, if it began before this call.
  std::vector<store::Message> ask(std::vector<store::Message> messages, milliseconds timeout,
                                  const std::function<std::string(std::size_t)>& what,
                                  const store::Deadline* of_all = nullptr);
  template <class Done>
  void await(std::unique_lock<std::mutex>& lock, const store::Deadline& deadline, Done done);
  void send(const std::string& bytes);

  JobIdentity identity_;
  std::string where_;  // the store's address and port
  std::string local_address_;
  Fd socket_;
  std::string input_;  // the reading thread's, after the handshake

  std::mutex send_mutex_;  // a message goes out whole
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::uint32_t next_request_ = 1;
  std::unordered_map<std::uint32_t, std::optional<store::Message>> replies_;
  bool ready_ = false;
  bool closing_ = false;             // this end closes
  std::optional<std::string> lost_;  // why the connection ended
  std::optional<Failure> failure_;
  std::map<int, std::uint64_t> left_;

  std::mutex event_mutex_;  // held while it runs
  std::function<void()> event_;
  std::thread reader_;
};

}  // namespace sg::dist
