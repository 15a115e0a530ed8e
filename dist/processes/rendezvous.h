// How a process joins its job: rank 0 opens the store, everybody finds it and proves to be of the
// job, and when all have come they know each other by it. And how it goes: the store outlives its
// ranks.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "dist/environment.h"
#include "dist/processes/store_client.h"
#include "dist/processes/store_server.h"

namespace sg::dist {

class TokenFile;

class Rendezvous {
 public:
  using milliseconds = std::chrono::milliseconds;
  /// How long the end of a job may wait for other ranks to end as well; and that of one which
  /// failed, for them to hear of it: less than the launcher's grace.
  static constexpr milliseconds kGoodbye{30'000}, kLastWords{2'000};

  /// Collective: returns when all ranks have joined with the same `configuration`, of which a hash
  /// is compared. Errors: StoreClient's; a rank that does not come within the deadline (0: none).
  Rendezvous(const ProcessEnvironment& environment, const std::string& configuration,
             milliseconds deadline);
  /// Rank 0 waits for the others to go.
  ~Rendezvous();
  Rendezvous(const Rendezvous&) = delete;
  Rendezvous& operator=(const Rendezvous&) = delete;

  StoreClient& store() { return *client_; }
  /// After the store was told that this rank failed: tells the launcher whose failure it is.
  void failed();

 private:
  using Clock = std::chrono::steady_clock;

  void open_store(JobIdentity& identity, TokenFile* file);
  void find_store(JobIdentity& identity, TokenFile* file);
  milliseconds left() const;
  void go();

  const ProcessEnvironment environment_;
  const milliseconds deadline_;
  const Clock::time_point start_ = Clock::now();
  int port_;
  std::unique_ptr<StoreServer> server_;  // rank 0's
  std::unique_ptr<StoreClient> client_;
  bool failed_ = false;
};

}  // namespace sg::dist
