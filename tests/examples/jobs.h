// Jobs of several processes that train, and what a test sees of them from outside.
#pragma once

#include <fmt/format.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sstream>
#include <string>
#include <vector>

#include "tests/examples/processes.h"

namespace sg::test {

inline std::string cifar(const std::string& options) {
  return binary("cifar") + " --data " + small_data() + " --no-eval --threads 1 " + options;
}

/// Processes whose command line has `mark`, zombies apart.
inline std::vector<int> processes_with(const std::string& mark) {
  std::vector<int> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (std::stoi(name) == ::getpid()) continue;
    // A zombie's command line is empty.
    if (read_file(entry.path() / "cmdline").find(mark) != std::string::npos)
      found.push_back(std::stoi(name));
  }
  return found;
}

/// The process of a job, known by its `mark`, that has this RANK; 0 if there is none (yet).
inline pid_t process_of(const std::string& mark, int rank) {
  const std::string variable = fmt::format("RANK={}", rank);
  for (const int pid : processes_with(mark)) {
    std::istringstream variables(read_file(fmt::format("/proc/{}/environ", pid)));
    for (std::string entry; std::getline(variables, entry, '\0');)
      if (entry == variable) return pid;
  }
  return 0;
}

inline std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; ++at) ++count;
  return count;
}

/// A port where nobody listens, below those that the system hands out.
inline int free_port() {
  for (int port = 11'000 + ::getpid() % 8'000;; ++port) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    const bool free = ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    ::close(fd);
    if (free) return port;
  }
}

/// Whether any process listens on it, whatever the address.
inline bool listened_on(int port) {
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::istringstream lines(read_file(table));
    for (std::string line; std::getline(lines, line);) {
      std::istringstream fields(line);
      std::string number, local, remote, state;
      fields >> number >> local >> remote >> state;
      if (state == "0A" && local.ends_with(fmt::format(":{:04X}", port))) return true;
    }
  }
  return false;
}

/// A job without an end, under our launcher. Its processes are known by the metrics file.
struct Endless {
  explicit Endless(int n, const std::string& options = "")
      : metrics(scratch("metrics.jsonl").string()),
        process("shardgrad", fmt::format("run --nproc-per-node {} {} {}", n, options,
                                         cifar("--epochs 1000000 --metrics " + metrics))) {}
  bool trains() {
    return eventually([&] { return read_file(metrics).find("\"step\"") != std::string::npos; }, 60);
  }
  const std::string metrics;
  Process process;
};

/// Runs `program` on n processes with a fault.
inline Outcome with_fault(const std::string& fault, int n, const std::string& program,
                          const std::string& variables = "") {
  return shell("SHARDGRAD_FAULT=" + fault + " " + variables + " " + launch(kOwn, n) + program);
}

}  // namespace sg::test
