// The command line of `shardgrad`.
#pragma once

#include <set>
#include <span>
#include <string>
#include <vector>

namespace sg::cli {

/// `shardgrad run [options] program [args...]`. Names and defaults are those of `--help`.
struct RunOptions {
  int processes = 1;  ///< of each node
  int nodes = 1;
  int node_rank = 0;
  std::string master_addr = "127.0.0.1";
  int master_port = 0;  ///< 0: a free one, on one node only
  int max_restarts = 0;
  std::string log_dir = {};               ///< empty: none
  bool tee = false;                       ///< with log_dir: to the terminal as well
  std::set<int> local_ranks_filter = {};  ///< whose output reaches the terminal; empty: all
  double shutdown_timeout = 30;           ///< seconds from a stop signal to SIGKILL
  double grace = 3;                       ///< seconds that peers of a failed rank have to end alone
  std::string backend = {};               ///< empty: SHARDGRAD_BACKEND, else auto
  std::vector<std::string> command = {};  ///< the program and its arguments, untouched

  int world_size() const { return nodes * processes; }
  int rank(int local_rank) const { return node_rank * processes + local_rank; }
  bool on_terminal(int local_rank) const {
    return (log_dir.empty() || tee) &&
           (local_ranks_filter.empty() || local_ranks_filter.contains(local_rank));
  }
};

struct CommandLine {
  std::string text = {};  ///< of --help or --version: to be printed, and nothing is run
  RunOptions run = {};
};

/// `args` without the program's own name. Options may be written with dashes or underscores; what
/// follows the first word that is no option (or `--`) is the program's. Throws UsageError, one line
/// that says what to write instead.
CommandLine parse_command_line(std::span<const std::string> args);

/// The port of several nodes unless --master-port names one.
inline constexpr int kDefaultPort = 29500;

}  // namespace sg::cli
