#include "dist/cli/group.h"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>

#include "dist/cli/errors.h"

namespace sg::cli {
namespace {

// `timeout` and some schedulers send a signal to a process and then to its whole group: that is one
// wish to stop, not a second.
constexpr std::chrono::milliseconds kSameWish{100};
constexpr double kLongestPoll = 3600;  // seconds, well within poll's int of milliseconds

}  // namespace

std::string describe(const Cause& cause, const RunOptions& options, const std::string& last_line) {
  const std::string who =
      fmt::format("rank {} (pid {})", options.rank(cause.local_rank), cause.pid);
  if (cause.unheeded != 0)
    return fmt::format("{} did not end within {} s of {} and was killed by signal {} ({})", who,
                       options.shutdown_timeout, signal_name(cause.unheeded), cause.end.code,
                       signal_name(cause.end.code));
  if (cause.by_peers)
    return fmt::format("{} made its peers fail and did not end before signal {} ({}){}{}", who,
                       cause.end.code, signal_name(cause.end.code),
                       last_line.empty() ? "" : "; its last line: ", last_line);
  if (cause.end.signalled)
    return fmt::format("{} was killed by signal {} ({})", who, cause.end.code,
                       signal_name(cause.end.code));
  const std::string of_another =
      cause.because_of ? fmt::format(" because rank {} of another node failed", *cause.because_of)
                       : "";
  return fmt::format("{} exited with status {}{}{}{}", who, cause.end.code, of_another,
                     last_line.empty() ? "" : "; its last line: ", last_line);
}

Outcome Group::wait() {
  while (!children_.all_ended()) serve_once();
  Outcome outcome{.cause = first_cause(), .status = 0, .stopped = stop_ != 0};
  const auto& all = children_.all();
  if (outcome.cause) {
    outcome.status = outcome.cause->by_peers ? kFailedStatus : outcome.cause->end.status();
  } else if (std::any_of(all.begin(), all.end(), [](const Child& c) { return *c.end != End{}; })) {
    outcome.status = kSignalStatus + stop_;
  }
  return outcome;
}

void Group::serve_once() {
  std::vector<pollfd> polls{{.fd = signals_.stop_fd(), .events = POLLIN, .revents = 0},
                            {.fd = signals_.child_fd(), .events = POLLIN, .revents = 0}};
  output_.ask(polls);
  if (::poll(polls.data(), polls.size(), poll_timeout()) < 0) {
    if (errno == EINTR) return;
    fail_errno("cannot wait for the processes");
  }
  output_.serve(polls);
  while (const std::optional<int> signal = signals_.take_stop()) on_stop(*signal);
  if (polls[1].revents != 0) {
    signals_.take_child();
    on_ends(children_.newly_ended());
  }
  if (deadline_ && Clock::now() >= *deadline_) on_deadline();
}

int Group::poll_timeout() const {
  if (!deadline_) return -1;
  const double left = std::chrono::duration<double>(*deadline_ - Clock::now()).count();
  return static_cast<int>(std::clamp(left, 0.0, kLongestPoll) * 1000) + 1;  // never too early
}

void Group::enter(Phase phase, double seconds) {
  phase_ = phase;
  deadline_ = Clock::now() +
              std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

void Group::on_stop(int signal) {
  const auto now = Clock::now();
  if (stop_ == 0) {
    stop_ = signal;
    stopped_at_ = now;
    children_.signal_all(signal);
    if (phase_ == Phase::running || phase_ == Phase::grace)
      enter(Phase::stopping, options_.shutdown_timeout);
  } else if (now - stopped_at_ >= kSameWish) {
    forced_ = true;
    if (phase_ != Phase::killed) kill();
  }
}

bool Group::failed(const Child& child) const {
  if (*child.end == End{}) return false;
  if (stop_ == 0) return true;
  if (child.killed) return !forced_;
  const int status = child.end->status();
  return status != kSignalStatus + SIGINT && status != kSignalStatus + SIGTERM &&
         status != kSignalStatus + stop_;
}

void Group::on_ends(const std::vector<int>& ended) {
  if (phase_ == Phase::stopping || phase_ == Phase::killed)
    told_.insert(ended.begin(), ended.end());
  const auto before = static_cast<std::ptrdiff_t>(failures_.size());
  for (const int local_rank : ended) {
    const Child& child = children_.all()[static_cast<std::size_t>(local_rank)];
    if (!failed(child)) continue;
    failures_.push_back({.local_rank = local_rank,
                         .pid = child.pid,
                         .end = *child.end,
                         .unheeded = child.killed ? stop_ : 0,
                         .after_stop = stop_ != 0});
  }
  // Of ends seen at the same time, an exit may be the answer to a death by signal.
  std::stable_partition(failures_.begin() + before, failures_.end(),
                        [](const Cause& failure) { return failure.end.signalled; });
  if (!failures_.empty() && phase_ == Phase::running) enter(Phase::grace, options_.grace);
}

std::optional<Cause> Group::first_cause() {
  for (const Cause& failure : failures_)
    if (std::optional<Cause> cause = cause_of(failure)) return cause;
  return std::nullopt;
}

// Who ended first may have done so because of another, and says of whom. That one is the cause if
// it failed as well, be it later.
std::optional<Cause> Group::cause_of(Cause failure) {
  const int rank = options_.rank(failure.local_rank), first = blame_.first_cause(rank);
  if (first == rank) return failure;
  const int local_rank = first - options_.rank(0);
  if (local_rank < 0 || local_rank >= options_.processes) {
    failure.because_of = first;
    return failure;
  }
  const Child& child = children_.all()[static_cast<std::size_t>(local_rank)];
  // What it did when it was told to end says nothing of why its peers had failed before.
  const bool told =
      !failure.after_stop && told_.contains(local_rank) && child.end->signalled &&
      (child.end->code == SIGTERM || child.end->code == SIGKILL || child.end->code == stop_);
  if (told)
    return Cause{
        .local_rank = local_rank, .pid = child.pid, .end = *child.end, .by_peers = true};
  for (const Cause& own : failures_)
    if (own.local_rank == local_rank) return own;
  // A rank that missed one which the stop signal ended has not failed.
  if (failure.after_stop) return std::nullopt;
  return failure;
}

void Group::on_deadline() {
  if (phase_ == Phase::grace) {
    children_.signal_all(SIGTERM);
    enter(Phase::stopping, options_.shutdown_timeout);
  } else if (phase_ == Phase::stopping) {
    kill();
  } else {
    deadline_.reset();
    on_ends(children_.give_up());
  }
}

void Group::kill() {
  children_.kill_all();
  enter(Phase::killed, std::chrono::duration<double>(kDying).count());
}

}  // namespace sg::cli
