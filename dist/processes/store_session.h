// The store without sockets: what the job knows, and one session a connection. Bytes go in, bytes
// come out, time is given; one thread at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "dist/processes/store_protocol.h"

namespace sg::dist::store {

class Session;

/// The reason of a session whose connection just ended.
inline constexpr const char* kNoGoodbye = "its connection to the store ended without a goodbye";
/// That of one whose job's store comes when this one has ended.
inline constexpr const char* kTooEarly = "it is of a later attempt";

/// Keys and values, who has joined and who has left, and the job's first failure.
class StoreJob {
 public:
  struct Limits {
    std::size_t keys = kMaxKeys;
    std::size_t bytes = kMaxStored;
  };
  explicit StoreJob(JobIdentity identity);
  StoreJob(JobIdentity identity, Limits limits);
  const JobIdentity& identity() const { return identity_; }

  /// Lets the session in as the rank it says it is, or returns the answer that keeps it out:
  /// refused or over.
  std::optional<Message> join(Session& session, const Message& message);
  /// A request of a rank that has joined.
  void serve(Session& session, const Message& message);
  /// The session ends. A rank that has joined and not left is lost, and that fails the job.
  void remove(Session& session, const std::string& reason);
  /// Tells all ranks, those that join later included, and refuses what waits. The first one counts.
  void fail_job(int rank, const std::string& text);

  std::vector<int> missing() const;  ///< ranks that have not joined
  bool ready() const { return joined_ == identity_.world_size; }
  int present() const {
    return present_;
  }  ///< ranks that have joined and neither left nor got lost
  const std::optional<Failure>& failure() const { return failure_; }

 private:
  struct Place {
    Session* session = nullptr;
    std::string peer;  // where it joined from; empty if it has not
    int attempt = 0;   // as which it joined
    bool left = false;
    std::uint64_t postings = 0;
  };
  struct Parked {
    Session* session;
    std::uint32_t request;
    MessageType type;
  };

  std::string mismatch(const Message& join) const;  // with what the job is; empty if none
  void set(Session& session, const Message& message);
  void find(Session& session, const Message& message);
  void leave(Session& session, std::uint64_t postings);
  void unpark(Session& session, std::uint32_t request);
  void broadcast(const Message& message);

  JobIdentity identity_;
  Limits limits_;
  std::vector<Place> places_;
  int joined_ = 0;
  int present_ = 0;
  std::unordered_map<std::string, std::string> values_;
  std::size_t stored_ = 0;  // bytes of keys and values
  std::unordered_map<std::string, std::vector<Parked>> parked_;
  std::optional<Failure> failure_;
};

/// One connection as the store sees it.
class Session {
 public:
  using Time = std::chrono::steady_clock::time_point;

  /// `peer` is the other end's address, for texts.
  Session(StoreJob& job, std::string peer, const Nonce& nonce, Time now);

  /// Most bytes to read now: of a stranger not one more than a hello has.
  std::size_t wants() const;
  void feed(Bytes bytes, Time now);
  /// True if a handshake or the rest of a message is `limit` late.
  bool late(Time now, std::chrono::milliseconds limit) const;
  /// When `late` becomes true; nothing while it waits for nothing.
  std::optional<Time> due(std::chrono::milliseconds limit) const;

  /// For the peer; the owner erases what it has sent.
  std::string& output() { return output_; }
  void send(const Message& message);
  /// Nothing more is read; what is in output() still goes out. `reason` is a clause about "it": "it
  /// sent ...". The first one counts.
  void close(const std::string& reason);
  bool closing() const { return closing_; }
  const std::string& reason() const { return reason_; }

  const std::string& peer() const { return peer_; }
  /// It sent a whole hello, as a rank does, be its token right or wrong.
  bool spoke_well() const { return spoke_well_; }
  int rank() const { return rank_; }  ///< -1 before it has joined
  bool joined() const { return rank_ >= 0; }

 private:
  friend class StoreJob;
  bool prove();
  void act(const Message& message);
  void refuse(Status status, const std::string& reason);

  StoreJob& job_;
  std::string peer_;
  Nonce nonce_;
  std::string input_;
  std::string output_;
  bool proven_ = false;
  bool spoke_well_ = false;
  int rank_ = -1;
  bool closing_ = false;
  std::string reason_;
  std::optional<Time> incomplete_since_;
  std::unordered_map<std::uint32_t, std::string> parked_;  // request -> key
};

/// "rank 2", "ranks 2, 3"; of many the first 16 and how many more.
std::string ranks_text(const std::vector<int>& ranks);

}  // namespace sg::dist::store
