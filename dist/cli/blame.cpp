#include "dist/cli/blame.h"

#include <charconv>
#include <set>

namespace sg::cli {

Blame::Blame() : pipe_(make_pipe()) { ::fcntl(pipe_.read.get(), F_SETFL, O_NONBLOCK); }

int Blame::first_cause(int rank) {
  char buffer[4096];
  ssize_t count = 0;
  while ((count = ::read(pipe_.read.get(), buffer, sizeof buffer)) > 0)
    input_.append(buffer, static_cast<std::size_t>(count));
  for (std::size_t end = 0; (end = input_.find('\n')) != std::string::npos;
       input_.erase(0, end + 1)) {
    int who = -1, whom = -1;
    const char* const last = input_.data() + end;
    const auto [space, error] = std::from_chars(input_.data(), last, who);
    if (error != std::errc() || space == last) continue;
    if (std::from_chars(space + 1, last, whom).ptr == last) because_of_.emplace(who, whom);
  }
  // A circle, which no two honest ranks make, must not be walked for ever.
  std::set<int> seen;
  while (seen.insert(rank).second && because_of_.contains(rank)) rank = because_of_[rank];
  return rank;
}

}  // namespace sg::cli
