#include "dist/job.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

#if SG_GLOO
#include "dist/processes/process_group.h"
#else
namespace sg::dist {
class ProcessGroup {};
}  // namespace sg::dist
#endif

namespace sg::dist {

int default_threads(const ProcessEnvironment& environment) {
  if (!SG_OPENMP) return 1;  // more would run one after another
  // OMP_NUM_THREADS, which available_cores() knows, is the launcher's word for one process.
  if (std::getenv("OMP_NUM_THREADS") != nullptr) return available_cores();
  return default_threads(environment.local_world_size);
}

namespace {

// Of a job of one process nobody asks for the store.
void close_socket(int fd) {
  int listening = 0;
  socklen_t size = sizeof listening;
  if (fd >= 0 && ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening)
    ::close(fd);
}

}  // namespace

Job::Job(int ranks, const LaunchOptions& options, [[maybe_unused]] const std::string& configuration)
    : ranks_(ranks), options_(options) {
  SG_CHECK(options.backend != Backend::nccl || options.device.is_cuda(),
           "[launch] the backend nccl connects GPUs, and the ranks compute on {}; give --device "
           "cuda, or take the backend auto",
           name_of(options.device));
  const std::optional<ProcessEnvironment> environment = process_environment();
  if (!environment) return;
  ranks_ = environment->world_size;
  // Good once: what this process starts, or a second job, must not take them for its own.
  for (const char* name : {"SHARDGRAD_STORE_FD", "SHARDGRAD_FAILURE_FD"}) ::unsetenv(name);
  if (ranks_ == 1) {
    close_socket(environment->listening_socket);
    return;
  }
#if SG_GLOO
  if (options_.device.is_cuda()) options_.device = gpu_of(*environment, options_.backend);
  group_ = std::make_unique<ProcessGroup>(*environment, options_, configuration);
#else
  fail(
      "[launch] {} started {} processes, and this build has no Gloo to connect them; install "
      "libgloo-dev and libssl-dev and configure again, or start one process with --ranks {}",
      environment->launcher, ranks_, ranks_);
#endif
}

Job::~Job() = default;

int Job::first_rank() const {
#if SG_GLOO
  if (group_ != nullptr) return group_->rank();
#endif
  return 0;
}

std::string Job::launcher() const {
#if SG_GLOO
  if (group_ != nullptr) return group_->launcher();
#endif
  return {};
}

int Job::threads() const {
#if SG_GLOO
  if (group_ != nullptr) return group_->threads();
#endif
  return options_.threads > 0 ? options_.threads : default_threads(ranks_);
}

Executor Job::executor() const {
#if SG_GLOO
  if (group_ != nullptr) return group_->executor();
#endif
  return options_.executor.value_or(default_executor(ranks_, threads()));
}

void Job::run(const std::function<void(Rank&)>& fn) {
#if SG_GLOO
  if (group_ != nullptr) return group_->run(fn);
#endif
  launch_ranks(ranks_, fn, options_);
}

}  // namespace sg::dist
