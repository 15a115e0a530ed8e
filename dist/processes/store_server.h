// The store's server: one thread with poll() that holds the job's keys and watches over its ranks.
// Lives in the process of rank 0 (or the launcher).
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "dist/processes/store_session.h"
#include "dist/processes/store_socket.h"

namespace sg::dist {

/// A rank whose connection ends without StoreClient::leave is lost, and all others are told. At
/// most 4 * world_size + 64 connections are open at a time; beyond, the oldest that has not joined
/// is dropped.
class StoreServer {
 public:
  struct Options {
    std::string address = "127.0.0.1";  ///< or a host's name; empty: every address of this host
    int port = 0;                       ///< 0: one that is free
    /// A socket that is bound and listening already, -1 for none; owned from here on, and address
    /// and port are not used.
    int listening_socket = -1;
    /// For a connection until it has joined, and for the rest of a message that has begun.
    std::chrono::milliseconds handshake_deadline{5000};
    /// From now until all ranks must have joined; 0: none. The job fails then, and the text names
    /// the missing ranks.
    std::chrono::milliseconds join_deadline{600'000};
    /// Gets progress lines and refused connections, on the server's thread. Default: stderr.
    std::function<void(const std::string&)> say;
    /// How often missing ranks are named; 0: never.
    std::chrono::milliseconds report_interval{10'000};
  };

  /// Listens when it returns. Errors: the port is in use, the address is none of this host.
  StoreServer(JobIdentity identity, Options options);
  /// Ends every connection: a rank that has not left sees rank 0 lost.
  ~StoreServer();
  int port() const { return port_; }
  /// Waits until every rank that joined has left or was lost; false at the timeout. 0: no limit.
  bool wait_all_gone(std::chrono::milliseconds timeout);

 private:
  using Time = std::chrono::steady_clock::time_point;
  struct Connection {
    Fd socket;
    std::unique_ptr<store::Session>
        session;  // none: refused or over, and what still comes is thrown away
    Time ends{};  // of the latter, at the latest
    std::string host;
  };

  void run();
  void round();
  void supervise(Time now);
  void sweep(Time now);
  bool settle(Connection& connection, Time now);  // false: it is over
  void publish();
  int poll_timeout(Time now) const;
  void accept_all(Time now);
  bool make_room();
  void receive(Connection& connection, Time now);
  void say(const std::string& text) const;
  void say_refused(const store::Session& session);

  Options options_;
  Fd listening_;
  Fd wake_;  // an eventfd
  int port_ = 0;
  std::size_t max_connections_;
  std::atomic<bool> stopping_{false};
  // The thread's own.
  store::StoreJob job_;
  std::vector<Connection> connections_;  // oldest first
  Time started_, next_report_, accept_again_{};
  int refusals_said_ = 0;
  int rank_refusals_said_ = 0;  // of those that speak as ranks do
  // Between it and wait_all_gone.
  std::mutex mutex_;
  std::condition_variable changed_;
  int present_ = 0;
  std::thread thread_;
};

}  // namespace sg::dist
