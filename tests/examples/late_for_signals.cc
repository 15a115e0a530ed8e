// All ranks have joined their job, and one has yet to ask for stop signals: what comes now ends it.
//   late_for_signals RANK FILE     each rank that is as far as it gets appends a byte to the file
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "core/check.h"
#include "dist/arrows.h"
#include "dist/comm/comm.h"
#include "dist/job.h"
#include "dist/stop_signals.h"
#include "examples/common/options.h"

using namespace sg;

int main(int argc, char** argv) {
  return examples::run_program("late_for_signals", [&] {
    SG_CHECK(argc == 3, "usage: late_for_signals RANK FILE");
    dist::Job job(1, {.threads = 1});
    const auto ready = [&] {
      std::FILE* file = std::fopen(argv[2], "a");
      SG_CHECK(file != nullptr && std::fputc('.', file) == '.' && std::fclose(file) == 0,
               "cannot write {}", argv[2]);
    };
    if (job.first_rank() == std::atoi(argv[1])) {
      ready();
      for (;;) ::pause();
    }
    dist::install_stop_signals();
    ready();
    job.run([](Rank&) {
      const std::uint64_t mine[] = {0};
      dist::exchange(dist::current_comm(), "control", mine);
    });
    return 0;
  });
}
