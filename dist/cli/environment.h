// What a process is told in its environment, and where that comes from.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dist/cli/run_options.h"

namespace sg::cli {

/// Cores that this process may run on, at least one.
int available_cores();

/// The environment of this process, as NAME=value.
std::vector<std::string> inherited_environment();

/// The value of `name` in an environment; none if it is not there, or empty.
std::optional<std::string> value_of(std::span<const std::string> environment,
                                    std::string_view name);

/// What all processes of one start share.
struct Job {
  std::string mark;  ///< Guardian::mark()
  int port = 0;      ///< of the store
  std::string token;
  int restart_count = 0;
  int cores = 1;  ///< of this node
};

/// 32 fresh random bytes in hexadecimal digits.
std::string random_token();

/// SHARDGRAD_TOKEN; else, on one node, a random one. Several nodes without one are a
/// UsageError: they could not know each other's.
std::string job_token(const RunOptions& options, std::span<const std::string> inherited);

/// The environment of one process: `inherited` with these set
///   RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT
///   SHARDGRAD_RUN SHARDGRAD_TOKEN SHARDGRAD_RESTART_COUNT SHARDGRAD_BACKEND
///   SHARDGRAD_LOG_DIR   the absolute path, with --log-dir
///   SHARDGRAD_STORE_FD  rank 0: the descriptor of the socket that listens at MASTER_PORT
///   SHARDGRAD_FAILURE_FD  where a rank says whose failure its own is; see dist/cli/blame.h
///   OMP_NUM_THREADS     cores / processes, unless set
/// SHARDGRAD_PORT and descriptors of an outer job are taken out. CUDA_VISIBLE_DEVICES and
/// all others stay as they are.
std::vector<std::string> child_environment(std::span<const std::string> inherited,
                                           const RunOptions& options, const Job& job,
                                           int local_rank, std::optional<int> store_fd,
                                           int failure_fd = -1);

}  // namespace sg::cli
