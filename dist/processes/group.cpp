#include "dist/processes/group.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string_view>
#include <thread>

#include "core/check.h"
#include "core/rng.h"
#include "dist/job.h"
#include "dist/processes/token_file.h"

namespace sg::dist {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kStaleFile{3'000}, kStaleTry{500};
// How long the end of a job may wait for other ranks to end as well.
constexpr milliseconds kGoodbye{30'000};

}  // namespace

ProcessGroup::ProcessGroup(const ProcessEnvironment& environment, const LaunchOptions& options,
                           const std::string& configuration)
    : environment_(environment), seed_(options.seed) {
  join(options, configuration);
  const int size = environment_.world_size;
  threads_ = options.threads > 0 ? options.threads : default_threads(environment_);
  auto transport =
      std::make_unique<GlooTransport>(*client_, environment_.rank, size, options.deadline);
  transport_ = transport.get();
  comm_ = std::make_unique<Comm>(
      std::move(transport),
      options.executor.value_or(default_executor(environment_.local_world_size, threads_)));
}

// Rank 0 opens the store; everybody, rank 0 included, joins it with proof of the token.
void ProcessGroup::join(const LaunchOptions& options, const std::string& configuration) {
  const ProcessEnvironment& e = environment_;
  JobIdentity identity{.token = e.token,
                       .rank = e.rank,
                       .world_size = e.world_size,
                       .job = e.job,
                       .configuration = fmt::format("{:016x}", name_key(configuration))};
  int port = e.port;
  std::unique_ptr<TokenFile> file;
  if (identity.token.empty()) file = std::make_unique<TokenFile>(e.port);
  if (e.rank == 0) {
    if (file != nullptr) identity.token = random_token();
    StoreServer::Options listen;
    listen.address = e.address;
    listen.port = e.port;
    listen.listening_socket = e.listening_socket;
    listen.join_deadline = options.deadline;
    try {
      server_ = std::make_unique<StoreServer>(identity, listen);
    } catch (const Error&) {
      // A launcher that knows nothing of us cannot keep a port free: where a file says where the
      // store is, another one will do.
      if (file == nullptr || e.listening_socket >= 0) throw;
      listen.port = 0;
      server_ = std::make_unique<StoreServer>(identity, listen);
    }
    port = server_->port();
    if (file != nullptr) file->write({port, identity.token});
  }
  const Clock::time_point start = Clock::now();
  const auto left = [&] {
    if (options.deadline.count() == 0) return milliseconds(0);
    const auto gone = std::chrono::duration_cast<milliseconds>(Clock::now() - start);
    return std::max(options.deadline - gone, milliseconds(1));
  };
  for (;;) {
    if (e.rank > 0 && file != nullptr) {
      const TokenFile::Content content = file->read(left());
      port = content.port;
      identity.token = content.token;
    }
    // The file may be that of a job before this one, which rank 0 is about to replace: nobody
    // listens at that port any more, or somebody else does.
    const bool doubtful = e.rank > 0 && file != nullptr && Clock::now() - start < kStaleFile;
    try {
      client_ =
          std::make_unique<StoreClient>(e.address, port, identity, doubtful ? kStaleTry : left());
      break;
    } catch (const StoreNotFound&) {
      if (!doubtful) throw;
      std::this_thread::sleep_for(milliseconds(20));
    }
  }
  client_->wait_all_joined(left());
}

ProcessGroup::~ProcessGroup() {
  comm_->stop();
  const Clock::time_point end = Clock::now() + kGoodbye;
  if (!failed_) {
    try {
      comm_->leave();
      // A connection that ends under a peer that still reads from another one would look like a
      // failure.
      const auto all_left = [&] {
        for (int r = 0; r < environment_.world_size; ++r)
          if (r != environment_.rank && !client_->left(r)) return false;
        return true;
      };
      while (!all_left() && !client_->failure() && Clock::now() < end)
        std::this_thread::sleep_for(milliseconds(2));
    } catch (const std::exception& error) {
      fmt::print(stderr, "rank {}: at the end: {}\n", environment_.rank, error.what());
    }
  }
  // Gloo's thread reads what was posted; it ends before that is freed.
  transport_->close();
  comm_.reset();
  client_.reset();
  if (server_ != nullptr) server_->wait_all_gone(kGoodbye);
}

void ProcessGroup::run(const std::function<void(Rank&)>& fn) {
  SG_CHECK(!failed_, "[launch] an earlier run of this job failed; start it again");
  context_ = std::make_unique<Rank>(environment_.rank, environment_.world_size, threads_, seed_);
  const RankScope rank(*context_);
  const CommScope comm(*comm_);
  try {
    fn(*context_);
    comm_->quiesce();
  } catch (const std::exception& error) {
    failed_ = true;
    comm_->poison(error.what());
    comm_->stop();
    fmt::print(stderr, "{}", dump_history(*comm_));
    fail("[rank {}] {}", environment_.rank, error.what());
  }
}

}  // namespace sg::dist
