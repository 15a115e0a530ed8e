// Programs started as processes, by our launcher or by another.
#pragma once

#include <fmt/format.h>

#include <cstdlib>

#include "tests/examples/support.h"
#include "tests/support/files.h"
#include "tests/support/processes.h"

namespace sg::test {

namespace fs = std::filesystem;

inline std::string binary(const std::string& name) {
  return std::string(SG_BINARY_DIR) + "/" + name;
}

/// Which of the launchers is on this machine, and how it starts n processes.
struct Launcher {
  const char* name;
  const char* command;  ///< searched in PATH; null: our own
  const char* options;  ///< {} is n
};

inline bool installed(const std::string& command) {
  return std::system(("command -v " + command + " >/dev/null 2>&1").c_str()) == 0;
}

/// Runs a shell command of at most a minute.
inline Outcome shell(const std::string& command) {
  const fs::path out = scratch("out.txt"), err = scratch("err.txt");
  const int status = std::system(fmt::format("timeout -k 5 60 env -u SHARDGRAD_LOG_DIR {} >{} 2>{}",
                                             command, out.string(), err.string())
                                     .c_str());
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return {code, read_file(out), read_file(err)};
}

inline std::string launch(const Launcher& l, int n) {
  return (l.command == nullptr ? binary("shardgrad") : std::string(l.command)) + " " +
         fmt::format(fmt::runtime(l.options), n) + " ";
}

inline const Launcher kOwn{"shardgrad", nullptr, "run --nproc-per-node {}"};
inline const Launcher kMpirun{"mpirun", "mpirun", "--oversubscribe --allow-run-as-root -n {}"};

}  // namespace sg::test
