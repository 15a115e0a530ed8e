// The command-line program `shardgrad`.
#include <fcntl.h>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "dist/cli/errors.h"
#include "dist/cli/fd.h"
#include "dist/cli/run.h"
#include "dist/cli/run_options.h"
#include "dist/say.h"

namespace {

// A descriptor that we open must not become somebody's standard output by its number.
void open_standard_descriptors() {
  int fd = 0;
  do {
    fd = ::open("/dev/null", O_RDWR);
  } while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd >= 0) ::close(fd);
}

int say(const std::string& name, const std::exception& error, int status) {
  sg::say_error("{}: {}\n", name, error.what());
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  open_standard_descriptors();
  const std::vector<std::string> args(argv + (argc > 0 ? 1 : 0), argv + argc);
  const std::string name = !args.empty() && args[0] == "run" ? "shardgrad run" : "shardgrad";
  try {
    const sg::cli::CommandLine line = sg::cli::parse_command_line(args);
    if (!line.text.empty()) {
      // That nobody reads it is no failure of ours, nor is it a success.
      const bool written =
          std::fwrite(line.text.data(), 1, line.text.size(), stdout) == line.text.size() &&
          std::fflush(stdout) == 0;
      return written ? 0 : sg::cli::kFailedStatus;
    }
    return sg::cli::run(line.run);
  } catch (const sg::cli::UsageError& error) {
    return say(name, error, sg::cli::kUsageStatus);
  } catch (const sg::cli::StartError& error) {
    return say(name, error, sg::cli::kCannotStartStatus);
  } catch (const std::exception& error) {
    return say(name, error, sg::cli::kFailedStatus);
  }
}
