#include "dist/cli/run_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <string_view>

#include "core/did_you_mean.h"
#include "dist/cli/environment.h"
#include "dist/cli/errors.h"

#ifndef SG_VERSION
#define SG_VERSION "unknown"
#endif

namespace sg::cli {
namespace {

constexpr int kMostProcesses = 1024;  // of a node; more is a typing error
constexpr int kMostNodes = 65536;
constexpr double kLongestWait = 1e6;  // seconds

std::optional<int> whole_number(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

// Options as they are written, before they mean anything.
struct Written {
  std::string processes = "1", ranks_filter;
  bool standalone = false;
};

void add_run_options(CLI::App& run, RunOptions& o, Written& written) {
  run.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  run.add_option("--nproc-per-node", written.processes,
                 "processes on this node; auto: one for each core (1)");
  run.add_option("--nnodes", o.nodes, "nodes; each runs this command (1)");
  run.add_option("--node-rank", o.node_rank, "which of the nodes this is, from 0 (0)");
  run.add_option("--master-addr", o.master_addr, "name or address of node 0 (127.0.0.1)");
  run.add_option(
      "--master-port", o.master_port,
      fmt::format("port of the store on node 0 (one node: a free one; else {})", kDefaultPort));
  run.add_flag("--standalone", written.standalone, "one node, loopback, a free port");
  run.add_option("--max-restarts", o.max_restarts,
                 "how often all processes are started again after a failure (0)");
  run.add_option("--log-dir", o.log_dir,
                 "output goes to DIR/rank0.out, DIR/rank0.err and so on, not to the terminal");
  run.add_flag("--tee", o.tee, "with --log-dir: to the terminal as well");
  run.add_option("--local-ranks-filter", written.ranks_filter,
                 "local ranks whose output reaches the terminal, such as 0,2 (all)");
  run.add_option("--shutdown-timeout", o.shutdown_timeout,
                 "seconds from a stop signal to SIGKILL (30)");
  run.add_option("--grace", o.grace,
                 "seconds that peers of a failed rank have to end alone, before SIGTERM (3)");
  run.add_option("--backend", o.backend,
                 "what connects the ranks: gloo, nccl (GPUs), threads (of one process), or auto:\n"
                 "gloo between processes, nccl between their GPUs ($SHARDGRAD_BACKEND, else auto)");
}

[[noreturn]] void unknown_option(const CLI::App& run, const std::string& name) {
  std::vector<std::string> names;
  for (const CLI::Option* option : run.get_options())
    if (option->nonpositional()) names.push_back(option->get_name());
  const std::vector<std::string_view> views(names.begin(), names.end());
  usage_error("there is no option {}{} (`shardgrad run --help` lists the options)", name,
              did_you_mean(name, views));
}

// Cuts the words after `run` into options, each in one word with its value, and the program's
// command. CLI11 would look for options among the program's arguments too.
std::vector<std::string> cut(const CLI::App& run, std::span<const std::string> args,
                             std::vector<std::string>& command) {
  std::vector<std::string> options;
  std::size_t i = 0;
  for (; i < args.size() && args[i].starts_with('-'); ++i) {
    if (args[i] == "--") {
      ++i;
      break;
    }
    const std::size_t equals = args[i].find('=');
    std::string name = args[i].substr(0, equals);
    std::replace(name.begin(), name.end(), '_', '-');
    const CLI::Option* option = run.get_option_no_throw(name);
    if (option == nullptr || !option->nonpositional()) unknown_option(run, name);
    if (equals != std::string::npos) {
      if (equals + 1 == args[i].size()) usage_error("{} has no value; write {} VALUE", name, name);
      options.push_back(name + args[i].substr(equals));
    } else if (option->get_items_expected_max() == 0) {
      options.push_back(name);
    } else {
      if (i + 1 == args.size()) usage_error("{} has no value; write {} VALUE", name, name);
      options.push_back(name + "=" + args[++i]);
    }
  }
  command.assign(args.begin() + static_cast<std::ptrdiff_t>(i), args.end());
  return options;
}

void check_backend(const RunOptions& o) {
  constexpr std::string_view backends[] = {"auto", "threads", "gloo", "nccl"};
  if (o.backend.empty()) return;
  if (std::find(std::begin(backends), std::end(backends), o.backend) == std::end(backends))
    usage_error("--backend {}: there is none of that name{} ({})", o.backend,
                did_you_mean(o.backend, backends), fmt::join(backends, ", "));
  if (o.backend == "nccl" && !SG_NCCL)
    usage_error("--backend nccl: this build has no NCCL; use --backend gloo, or auto");
  if (o.backend == "threads" && o.world_size() > 1)
    usage_error(
        "--backend threads: ranks are threads of one process there, but {} processes are asked "
        "for; use --backend gloo, or one process and the program's own --ranks {}",
        o.world_size(), o.world_size());
}

void check_filter(RunOptions& o, std::string_view written) {
  for (std::size_t start = 0; start < written.size();) {
    const std::size_t comma = std::min(written.find(',', start), written.size());
    const std::optional<int> rank = whole_number(written.substr(start, comma - start));
    if (!rank || *rank < 0 || *rank >= o.processes)
      usage_error(
          "--local-ranks-filter {}: expected local ranks from 0 to {}, with commas between them",
          written, o.processes - 1);
    o.local_ranks_filter.insert(*rank);
    start = comma + 1;
  }
}

void check_nodes(const CLI::App& run, RunOptions& o, bool standalone) {
  if (o.nodes < 1 || o.nodes > kMostNodes)
    usage_error("--nnodes {}: use 1 to {} nodes", o.nodes, kMostNodes);
  if (o.node_rank < 0 || o.node_rank >= o.nodes)
    usage_error("--node-rank {}: the {} nodes of --nnodes have ranks 0 to {}", o.node_rank, o.nodes,
                o.nodes - 1);
  if (standalone && o.nodes > 1)
    usage_error("--standalone is one node, but --nnodes is {}; leave one of them out", o.nodes);
  for (const char* name : {"--master-addr", "--master-port"})
    if (standalone && run.count(name) > 0)
      usage_error("--standalone chooses {} by itself; leave one of them out", name);
  if (o.nodes > 1 && run.count("--master-addr") == 0)
    usage_error("--nnodes {}: the nodes must find node 0; add --master-addr with its address",
                o.nodes);
  if (o.master_port < 0 || o.master_port > 65535)
    usage_error("--master-port {}: ports go from 1 to 65535; 0, on one node, is a free one",
                o.master_port);
  if (o.nodes > 1 && o.master_port == 0) {
    if (run.count("--master-port") > 0)
      usage_error("--master-port 0: several nodes must agree on a port; name one, such as {}",
                  kDefaultPort);
    o.master_port = kDefaultPort;
  }
}

void check_seconds(const char* name, double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > kLongestWait)
    usage_error("{} {}: use 0 to {:.0f} seconds", name, seconds, kLongestWait);
}

void check(const CLI::App& run, RunOptions& o, const Written& written) {
  const std::optional<int> processes =
      written.processes == "auto" ? available_cores() : whole_number(written.processes);
  if (!processes || *processes < 1 || *processes > kMostProcesses)
    usage_error("--nproc-per-node {}: use 1 to {} processes, or auto", written.processes,
                kMostProcesses);
  o.processes = *processes;
  check_nodes(run, o, written.standalone);
  if (o.max_restarts < 0) usage_error("--max-restarts {}: use 0 (none) or more", o.max_restarts);
  if (o.tee && o.log_dir.empty())
    usage_error("--tee copies what --log-dir writes; add --log-dir DIR, or leave --tee out");
  check_seconds("--shutdown-timeout", o.shutdown_timeout);
  check_seconds("--grace", o.grace);
  check_filter(o, written.ranks_filter);
  check_backend(o);
  if (o.command.empty() || o.command.front().empty())
    usage_error("no program to run; write `shardgrad run [options] program [args...]`");
}

}  // namespace

CommandLine parse_command_line(std::span<const std::string> args) {
  CommandLine line;
  Written written;
  std::vector<std::string> command;  // for --help alone: cut() takes it before CLI11 sees it
  CLI::App app("The command-line program of shardgrad.", "shardgrad");
  app.set_version_flag("--version", "shardgrad " SG_VERSION);
  app.require_subcommand(1);
  CLI::App& run =
      *app.add_subcommand("run", "Starts a program as several processes, and ends them together.");
  add_run_options(run, line.run, written);
  run.add_option("program", command, "the program, and all that follows is its own");

  if (args.empty()) usage_error("no command; write `shardgrad run program`, or `shardgrad --help`");
  std::vector<std::string> words{args.front()};
  if (args.front() == "run") {
    const std::vector<std::string> options = cut(run, args.subspan(1), line.run.command);
    words.insert(words.end(), options.begin(), options.end());
  } else if (!args.front().starts_with('-')) {
    usage_error("there is no command {}; did you mean run? (`shardgrad --help` lists them)",
                args.front());
  }
  std::reverse(words.begin(), words.end());  // as CLI11 takes them
  try {
    app.parse(words);
  } catch (const CLI::CallForHelp&) {
    line.text = app.help();
    return line;
  } catch (const CLI::CallForVersion& version) {
    line.text = fmt::format("{}\n", version.what());
    return line;
  } catch (const CLI::ParseError& error) {
    std::string what = error.what();
    std::replace(what.begin(), what.end(), '\n', ' ');
    usage_error("{}; `shardgrad {}--help` lists the options", what,
                args.front() == "run" ? "run " : "");
  }
  check(run, line.run, written);
  return line;
}

}  // namespace sg::cli
