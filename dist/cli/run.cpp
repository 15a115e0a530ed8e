#include "dist/cli/run.h"

#include <fmt/format.h>
#include <sys/prctl.h>

#include "dist/cli/blame.h"
#include "dist/cli/children.h"
#include "dist/cli/environment.h"
#include "dist/cli/group.h"
#include "dist/cli/guardian.h"
#include "dist/cli/listener.h"
#include "dist/cli/output.h"
#include "dist/cli/signals.h"

namespace sg::cli {
namespace {

// Opens the store's socket, starts every process and lets go of the socket: when rank 0 is gone,
// connections are refused and do not hang.
void start_all(const RunOptions& options, const std::vector<std::string>& inherited,
               const std::string& mark, int restarts, Children& children, Output& output,
               Blame& blame) {
  Listener listener;
  if (options.node_rank == 0)
    listener = listen_at(options.master_addr, options.master_port, options.nodes > 1);
  const Job job{.mark = mark,
                .port = options.node_rank == 0 ? listener.port : options.master_port,
                .token = job_token(options, inherited),
                .restart_count = restarts,
                .cores = available_cores()};
  for (int local_rank = 0; local_rank < options.processes; ++local_rank) {
    const bool first = options.rank(local_rank) == 0;
    const std::optional<int> store =
        first ? std::optional<int>(listener.socket.get()) : std::nullopt;
    // A process in a group of its own would be stopped at its first read from a terminal.
    const bool input = first && ::isatty(STDIN_FILENO) == 0;
    const auto environment =
        child_environment(inherited, options, job, local_rank, store, blame.write_fd());
    std::vector<int> descriptors{blame.write_fd()};
    if (store) descriptors.push_back(*store);
    Streams streams = children.start({.command = options.command,
                                      .environment = environment,
                                      .inherited = descriptors,
                                      .input = input});
    output.add(local_rank, std::move(streams.out), std::move(streams.err));
  }
}

}  // namespace

int run(const RunOptions& options) {
  const std::vector<std::string> inherited = inherited_environment();
  Signals signals;
  Guardian guardian;
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);  // orphans below become ours, and are found
  Output output(options);
  for (int restarts = 0;; ++restarts) {
    Children children(guardian);
    Blame blame;
    start_all(options, inherited, guardian.mark(), restarts, children, output, blame);
    blame.all_started();
    Outcome outcome = Group(options, children, output, signals, blame).wait();
    const std::vector<pid_t> undead = children.sweep();
    for (const pid_t pid : undead)
      output.say(
          fmt::format("shardgrad run: process {} did not end within 5 s of SIGKILL and is "
                      "left behind (`cat /proc/{}/stack` may say in what)",
                      pid, pid));
    output.finish(signals.stop_fd());
    if (!outcome.cause) return outcome.status;

    const std::string cause =
        describe(*outcome.cause, options, output.last_error_line(outcome.cause->local_rank));
    const bool stopped = outcome.stopped || signals.take_stop();
    // One that is left behind may hold a GPU, or the store's port.
    if (stopped || !undead.empty() || restarts == options.max_restarts) {
      output.say("shardgrad run: " + cause);
      output.finish(signals.stop_fd());
      return outcome.status;
    }
    output.say(fmt::format("shardgrad run: {}; starting all again (restart {} of {})", cause,
                           restarts + 1, options.max_restarts));
  }
}

}  // namespace sg::cli
