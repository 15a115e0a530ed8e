#include "dist/cli/environment.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <thread>
#include <utility>

#include "dist/cli/errors.h"

namespace sg::cli {
namespace {

bool names(std::string_view entry, std::string_view name) {
  return entry.size() > name.size() && entry[name.size()] == '=' && entry.starts_with(name);
}

}  // namespace

std::string random_token() {
  std::array<unsigned char, 32> bytes;
  if (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    fail_errno("cannot draw a job token");
  return fmt::format("{:02x}", fmt::join(bytes, ""));
}

int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) == 0) return std::max(CPU_COUNT(&set), 1);
  return std::max(static_cast<int>(std::thread::hardware_concurrency()), 1);  // over 1024 cores
}

std::vector<std::string> inherited_environment() {
  std::vector<std::string> all;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry)
    all.push_back(*entry);
  return all;
}

std::optional<std::string> value_of(std::span<const std::string> environment,
                                    std::string_view name) {
  for (const std::string& entry : environment) {
    if (!names(entry, name)) continue;
    const std::string value = entry.substr(name.size() + 1);
    if (!value.empty()) return value;
  }
  return std::nullopt;
}

std::string job_token(const RunOptions& options, std::span<const std::string> inherited) {
  if (std::optional<std::string> token = value_of(inherited, "SHARDGRAD_TOKEN")) return *token;
  if (options.nodes == 1) return random_token();
  usage_error(
      "--nnodes {}: processes of several nodes prove by a secret that they are of one job; set "
      "SHARDGRAD_TOKEN to the same secret on every node (`openssl rand -hex 32` makes one)",
      options.nodes);
}

std::vector<std::string> child_environment(std::span<const std::string> inherited,
                                           const RunOptions& options, const Job& job,
                                           int local_rank, std::optional<int> store_fd,
                                           int failure_fd) {
  std::vector<std::pair<std::string, std::string>> set{
      {"RANK", std::to_string(options.rank(local_rank))},
      {"WORLD_SIZE", std::to_string(options.world_size())},
      {"LOCAL_RANK", std::to_string(local_rank)},
      {"LOCAL_WORLD_SIZE", std::to_string(options.processes)},
      {"MASTER_ADDR", options.master_addr},
      {"MASTER_PORT", std::to_string(job.port)},
      {"SHARDGRAD_RUN", job.mark},
      {"SHARDGRAD_TOKEN", job.token},
      {"SHARDGRAD_RESTART_COUNT", std::to_string(job.restart_count)},
      {"SHARDGRAD_BACKEND", !options.backend.empty()
                                ? options.backend
                                : value_of(inherited, "SHARDGRAD_BACKEND").value_or("auto")},
      {"OMP_NUM_THREADS",
       value_of(inherited, "OMP_NUM_THREADS")
           .value_or(std::to_string(std::max(job.cores / options.processes, 1)))},
  };
  if (!options.log_dir.empty())
    set.emplace_back("SHARDGRAD_LOG_DIR", std::filesystem::absolute(options.log_dir).string());
  if (store_fd) set.emplace_back("SHARDGRAD_STORE_FD", std::to_string(*store_fd));

  if (failure_fd >= 0) set.emplace_back("SHARDGRAD_FAILURE_FD", std::to_string(failure_fd));

  std::vector<std::string> environment;
  for (const std::string& entry : inherited) {
    const bool replaced = std::any_of(set.begin(), set.end(),
                                      [&](const auto& pair) { return names(entry, pair.first); });
    const bool of_another = names(entry, "SHARDGRAD_PORT") || names(entry, "SHARDGRAD_STORE_FD") ||
                            names(entry, "SHARDGRAD_FAILURE_FD");
    if (!replaced && !of_another) environment.push_back(entry);
  }
  for (const auto& [name, value] : set) environment.push_back(name + "=" + value);
  return environment;
}

}  // namespace sg::cli
