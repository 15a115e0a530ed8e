// Whose failure a rank's own failure is. The launcher sees who ends first, which need not be who
// failed first: rank 0 keeps the job's store until the others have heard of its failure. So each
// rank that fails writes one line into a pipe that all inherit, "2 0": rank 2 fails because of rank
// 0 (its own number: it is the first). Who dies by a signal writes nothing.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "dist/cli/fd.h"

namespace sg::cli {

class Blame {
 public:
  Blame();
  /// The end that processes inherit; closed here once they have it.
  int write_fd() const { return pipe_.write.get(); }
  void all_started() { pipe_.write.reset(); }
  /// The rank to which the failure of `rank` leads by what has been written; itself if it said
  /// nothing. Does not wait.
  int first_cause(int rank);

 private:
  Pipe pipe_;
  std::string input_;
  std::map<int, int> because_of_;
};

}  // namespace sg::cli
