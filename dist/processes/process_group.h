// This process's rank of a group of processes that know each other: its transport, Rank and Comm,
// how it runs and how it ends.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "dist/environment.h"
#include "dist/launch.h"
#include "dist/processes/gloo.h"
#include "dist/processes/rendezvous.h"

namespace sg::dist {

class ProcessGroup {
 public:
  /// Collective; see Job.
  ProcessGroup(const ProcessEnvironment& environment, const LaunchOptions& options,
               const std::string& configuration);
  ~ProcessGroup();

  int rank() const { return environment_.rank; }
  const std::string& launcher() const { return environment_.launcher; }
  int threads() const { return threads_; }
  Executor executor() const { return comm_->executor(); }
  void run(const std::function<void(Rank&)>& fn);

 private:
  void connect();
  /// Throws Stopped if the error is what becomes of a stop signal that finds a rank not ready.
  void check_stopped(const std::string& error);
  /// Tells the other ranks, and the launcher who failed first.
  void report(const std::string& error);
  StoreClient& store() { return rendezvous_.store(); }
  /// NCCL between the ranks' GPUs, whose id goes through the store. In the scope of a run.
  void connect_gpus();

  const ProcessEnvironment environment_;
  const LaunchOptions options_;
  const int exceptions_;  // under way when this was made
  int threads_ = 1;
  Rendezvous rendezvous_;
  std::unique_ptr<Rank>
      context_;  // of the run under way, or of the last: peers may read its memory
  GlooTransport* transport_ = nullptr;  // comm_'s
  std::unique_ptr<Comm> comm_;
  bool failed_ = false;
};

}  // namespace sg::dist
