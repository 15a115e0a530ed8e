// What a rank's group has done: the last collectives, for error texts, and hashes of all of them,
// by which ranks that run different programs find out.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "dist/comm/transport.h"

namespace sg::dist {

class History {
 public:
  /// Collectives that are remembered.
  static constexpr std::size_t kKept = 256;

  /// Gives the posting its numbers and remembers it. `between_gpus`: the transport does not see it.
  void add(Posting& posting, bool between_gpus);
  /// Of a collective that the transport carries: this rank has what it wanted.
  void finish(const Posting& posting);

  /// The last collectives, `most` and kKept at most, a line each, oldest first. Those between GPUs
  /// are finished below `first_unfinished`, which their stream knows.
  std::string text(std::size_t most, std::uint64_t first_unfinished) const;
  /// Whether this rank has what it wanted of any of them.
  bool any_finished(std::uint64_t first_unfinished) const;
  /// The last that was started: "all_gather of unit 1 (...)"; empty before the first.
  std::string last() const;
  /// Hashes of all up to each of the collectives that are remembered, oldest first.
  std::vector<std::uint64_t> fingerprints() const;
  /// The i-th of those that are remembered.
  std::string describe_kept(std::size_t i) const;

 private:
  // A view of what was posted is not kept.
  struct Entry {
    Posting posting;
    std::uint64_t fingerprint = 0;  // of all up to this one
    bool between_gpus = false, finished = false;
  };
  bool is_finished(std::uint64_t sequence, std::uint64_t first_unfinished) const;
  std::uint64_t first() const { return next_ - (next_ < kKept ? next_ : kKept); }

  std::uint64_t next_ = 0, next_ticket_ = 0;
  std::uint64_t unseen_ = 0;          // of those between GPUs
  std::array<Entry, kKept> entries_;  // collective s is in s % kKept
};

}  // namespace sg::dist
