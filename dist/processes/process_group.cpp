#include "dist/processes/process_group.h"

#include <chrono>
#include <exception>
#include <thread>

#include "core/check.h"
#include "core/cuda/cuda.h"
#include "dist/comm/nccl.h"
#include "dist/job.h"
#include "dist/say.h"
#include "dist/stop_signals.h"

namespace sg::dist {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// How much later than its peers a rank may hear of a stop. With Rendezvous::kLastWords it is less
// than the launcher's grace.
constexpr milliseconds kSameStop{700};

// Ranks of which some compute on GPUs, or whose GPUs sum in different ways, would wait for each
// other.
std::string with_device(const std::string& configuration, const LaunchOptions& options) {
  if (!options.device.is_cuda()) return configuration;
  return configuration + (options.deterministic ? " cuda deterministic" : " cuda");
}

}  // namespace

ProcessGroup::ProcessGroup(const ProcessEnvironment& environment, const LaunchOptions& options,
                           const std::string& configuration)
    : environment_(environment),
      options_(options),
      exceptions_(std::uncaught_exceptions()),
      rendezvous_(environment, with_device(configuration, options), options.deadline) {
  try {
    connect();
  } catch (const std::exception& error) {
    report(error.what());
    throw;
  }
}

void ProcessGroup::connect() {
  const std::string address = address_for_peers(environment_, store().local_address());
  threads_ = options_.threads > 0 ? options_.threads : default_threads(environment_);
  auto transport = std::make_unique<GlooTransport>(store(), address, environment_.rank,
                                                   environment_.world_size, options_.deadline);
  transport_ = transport.get();
  comm_ = std::make_unique<Comm>(
      std::move(transport),
      options_.executor.value_or(default_executor(environment_.local_world_size, threads_)));
}

// A program asks for stop signals before its ranks' first collective: until then they end it.
void ProcessGroup::check_stopped(const std::string& error) {
  const std::optional<Failure> failure = store().failure();
  if (!failure || failure->rank == rank() || !failure->loss()) return;
  const bool missed = error.find(fmt::format("rank {} lost", failure->rank)) != std::string::npos;
  if (!missed || comm_->any_finished() || !stop_signalled_within(kSameStop)) return;
  throw Stopped(fmt::format(
      "stopped by a signal; rank {} had ended before the first collective was complete ({})",
      failure->rank, *failure->loss()));
}

void ProcessGroup::report(const std::string& error) {
  failed_ = true;
  if (comm_ != nullptr)
    comm_->poison(error);
  else
    store().fail(error);
  rendezvous_.failed();
}

ProcessGroup::~ProcessGroup() {
  const bool failed_outside = !failed_ && std::uncaught_exceptions() > exceptions_;
  if (failed_outside) report("an exception ended the program beside its collectives");
  comm_->stop();
  if (failed_outside && options_.dump_collectives) dump_history(*comm_);
  const Clock::time_point end = Clock::now() + Rendezvous::kGoodbye;
  if (!failed_) {
    try {
      comm_->leave();
      // A connection that ends under a peer that still reads from another one would look like a
      // failure.
      const auto all_left = [&] {
        for (int r = 0; r < environment_.world_size; ++r)
          if (r != environment_.rank && !store().left(r)) return false;
        return true;
      };
      while (!all_left() && !store().failure() && Clock::now() < end)
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
}

void ProcessGroup::connect_gpus() {
  const std::string key = "nccl/id";
  if (rank() == 0) {
    const std::string id = nccl_id();
    store().set(key, {id.begin(), id.end()});
  }
  const std::vector<char> id = store().get(key, options_.deadline);
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
    check_stopped(error);
    if (options_.dump_collectives) dump_history(*comm_);
    fail("[rank {}] {}", environment_.rank, error);
  };
  try {
    if (options_.device.is_cuda() && !comm_->has_devices()) connect_gpus();
    fn(*context_);
    comm_->quiesce();
    // What it hands out is there, and what a kernel has found wrong is known, when it ends.
    cuda::synchronize();
  } catch (const std::exception& error) {
    failed(error.what());
  } catch (...) {
    failed("an exception that is no std::exception");
  }
}

}  // namespace sg::dist
