#include "dist/processes/group.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <string_view>
#include <thread>

#include "core/check.h"
#include "core/cuda/cuda.h"
#include "core/rng.h"
#include "dist/comm/nccl.h"
#include "dist/job.h"
#include "dist/processes/reminder.h"
#include "dist/processes/sigpipe.h"
#include "dist/processes/token_file.h"
#include "dist/say.h"

namespace sg::dist {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// One look for the store where the file says it is; then it is read again.
constexpr milliseconds kFirstSearch{1'000}, kLongestSearch{8'000};
// The store names those who are missing; who does not reach it names rank 0.
constexpr milliseconds kReminder{10'000};
// What the store says at the deadline names those who are missing.
constexpr milliseconds kStoresWord{5'000};
// How long the end of a job may wait for other ranks to end as well; and that of one which failed,
// for them to hear of it: less than the launcher's grace.
constexpr milliseconds kGoodbye{30'000}, kLastWords{2'000};

}  // namespace

ProcessGroup::ProcessGroup(const ProcessEnvironment& environment, const LaunchOptions& options,
                           const std::string& configuration)
    : environment_(environment), options_(options), exceptions_(std::uncaught_exceptions()) {
  try {
    join(configuration);
    connect();
  } catch (const std::exception& error) {
    if (client_ != nullptr) report(error.what());
    client_.reset();
    if (server_ != nullptr) server_->wait_all_gone(kLastWords);
    throw;
  }
}

void ProcessGroup::connect() {
  const std::string address = address_for_peers(environment_, client_->local_address());
  threads_ = options_.threads > 0 ? options_.threads : default_threads(environment_);
  auto transport = std::make_unique<GlooTransport>(*client_, address, environment_.rank,
                                                   environment_.world_size, options_.deadline);
  transport_ = transport.get();
  comm_ = std::make_unique<Comm>(
      std::move(transport),
      options_.executor.value_or(default_executor(environment_.local_world_size, threads_)));
}

// Rank 0 opens the store; everybody, rank 0 included, joins it with proof of the token.
void ProcessGroup::join(const std::string& configuration) {
  const ProcessEnvironment& e = environment_;
  // Ranks of which some compute on GPUs, or whose GPUs sum in different ways, would wait for each
  // other.
  std::string all = configuration;
  if (options_.device.is_cuda()) all += options_.deterministic ? " cuda deterministic" : " cuda";
  JobIdentity identity{.token = e.token,
                       .rank = e.rank,
                       .world_size = e.world_size,
                       .job = e.job,
                       .configuration = fmt::format("{:016x}", name_key(all))};
  int port = e.port;
  std::unique_ptr<TokenFile> file;
  if (identity.token.empty()) file = std::make_unique<TokenFile>(e.job, e.port);
  if (e.rank == 0) {
    if (file != nullptr) identity.token = random_token();
    StoreServer::Options listen;
    // As the launcher does it: the name of a host often means its loopback on that host itself.
    if (!e.several_hosts())
      listen.address = e.address;
    else
      listen.address = e.address.find(':') != std::string::npos ? "::" : "";
    listen.port = e.port;
    listen.listening_socket = e.listening_socket;
    listen.join_deadline = options_.deadline;
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
    if (options_.deadline.count() == 0) return milliseconds(0);
    const auto gone = std::chrono::duration_cast<milliseconds>(Clock::now() - start);
    return std::max(options_.deadline - gone, milliseconds(1));
  };
  std::optional<Reminder> reminder;
  if (e.rank > 0)
    reminder.emplace(kReminder, [&](milliseconds waited) {
      const std::string where =
          file != nullptr ? "writes to " + file->path() + " where the store is"
                          : fmt::format("holds the store at {}, port {}", e.address, e.port);
      say_error("[launch] rank {} waits for rank 0, which {} ({} s)\n", e.rank, where,
                waited.count() / 1000);
    });
  milliseconds search = file != nullptr && e.rank > 0 ? kFirstSearch : left();
  for (;; search = std::min(2 * search, kLongestSearch)) {
    if (e.rank > 0 && file != nullptr) {
      const TokenFile::Content content = file->read(left());
      port = content.port;
      identity.token = content.token;
    }
    try {
      client_ = std::make_unique<StoreClient>(e.address, port, identity, left(), search);
      break;
    } catch (const StoreNotFound& error) {
      // A file may be read in the moment in which its job ends and the next one has yet to come.
      if (e.rank == 0 || file == nullptr) throw;
      SG_CHECK(options_.deadline.count() == 0 || Clock::now() - start < options_.deadline,
               "[launch] rank {} found no store of the job within {} ms; at last: {}", e.rank,
               options_.deadline.count(), error.what());
      std::this_thread::sleep_for(milliseconds(20));
    }
  }
  reminder.reset();
  client_->wait_all_joined(options_.deadline.count() == 0 ? milliseconds(0)
                                                          : options_.deadline + kStoresWord);
}

void ProcessGroup::report(const std::string& error) {
  failed_ = true;
  if (comm_ != nullptr)
    comm_->poison(error);
  else
    client_->fail(error);
  tell_launcher();
}

// "2 0": rank 2 fails because of rank 0. The launcher sees only who ends first.
void ProcessGroup::tell_launcher() const {
  struct stat status {};
  const int fd = environment_.failure_fd;
  if (fd < 0 || ::fstat(fd, &status) != 0 || !S_ISFIFO(status.st_mode)) return;
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  const std::optional<Failure> failure = client_->failure();
  const std::string line =
      fmt::format("{} {}\n", environment_.rank, failure ? failure->rank : environment_.rank);
  const NoSigpipe quiet;
  // So few bytes go in one piece. If nobody reads, nobody is told.
  [[maybe_unused]] const ssize_t written = ::write(fd, line.data(), line.size());
}

ProcessGroup::~ProcessGroup() {
  const bool failed_outside = !failed_ && std::uncaught_exceptions() > exceptions_;
  if (failed_outside) report("an exception ended the program beside its collectives");
  comm_->stop();
  if (failed_outside) say_error("{}", dump_history(*comm_));
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
      say_error("rank {}: at the end: {}\n", environment_.rank, error.what());
    }
  }
  // It tells of failures by the transport.
  comm_->use({});
  // Gloo's thread reads what was posted; it ends before that is freed.
  transport_->close();
  comm_.reset();
  client_.reset();
  if (server_ != nullptr) server_->wait_all_gone(failed_ ? kLastWords : kGoodbye);
}

void ProcessGroup::connect_gpus() {
  const std::string key = "nccl/id";
  if (rank() == 0) {
    const std::string id = nccl_id();
    client_->set(key, {id.begin(), id.end()});
  }
  const std::vector<char> id = client_->get(key, options_.deadline);
  use_nccl(*comm_, {.id = {id.begin(), id.end()},
                    .device = options_.device,
                    .deterministic = options_.deterministic,
                    .deadline = options_.deadline});
}

void ProcessGroup::run(const std::function<void(Rank&)>& fn) {
  SG_CHECK(!failed_, "[launch] an earlier run of this job failed; start it again");
  context_ =
      std::make_unique<Rank>(environment_.rank, environment_.world_size, threads_, options_.seed);
  context_->device = options_.device;
  const RankScope rank(*context_);
  const CommScope comm(*comm_);
  const auto failed = [this](const std::string& error) {
    report(error);
    comm_->stop();
    say_error("{}", dump_history(*comm_));
    fail("[rank {}] {}", environment_.rank, error);
  };
  try {
    if (options_.device.is_cuda() && !comm_->has_devices()) connect_gpus();
    fn(*context_);
    comm_->quiesce();
    // What it hands out is there, and what a kernel has found wrong is known, when it ends.
    if (options_.device.is_cuda()) cuda::synchronize(options_.device);
  } catch (const std::exception& error) {
    failed(error.what());
  } catch (...) {
    failed("an exception that is no std::exception");
  }
}

}  // namespace sg::dist
