#include "dist/comm/history.h"

#include <algorithm>

#include "core/check.h"
#include "core/rng.h"

namespace sg::dist {
namespace {

// Multiplication and shift after Knuth, TAOCP 6.4: the odd number is 2^64 / phi.
std::uint64_t mix(std::uint64_t before, const Posting& p) {
  std::uint64_t h = before;
  for (const std::uint64_t word :
       {name_key(p.op), static_cast<std::uint64_t>(p.unit.index),
        static_cast<std::uint64_t>(p.dtype), static_cast<std::uint64_t>(p.count)}) {
    h = (h ^ word) * 0x9E3779B97F4A7C15u;
    h ^= h >> 32;
  }
  return h;
}

}  // namespace

void History::add(Posting& posting, bool between_gpus) {
  const std::uint64_t before = next_ == 0 ? 0 : entries_[(next_ - 1) % kKept].fingerprint;
  posting.sequence = next_++;
  if (between_gpus) {
    unseen_ = mix(unseen_, posting);
  } else {
    posting.ticket = next_ticket_++;
    posting.unseen = unseen_;
  }
  Entry& entry = entries_[posting.sequence % kKept];
  entry = {posting, mix(before, posting), between_gpus, false};
  entry.posting.written = nullptr;
}

void History::finish(const Posting& posting) { entries_[posting.sequence % kKept].finished = true; }

bool History::is_finished(std::uint64_t sequence, std::uint64_t first_unfinished) const {
  const Entry& entry = entries_[sequence % kKept];
  return entry.between_gpus ? sequence < first_unfinished : entry.finished;
}

bool History::any_finished(std::uint64_t first_unfinished) const {
  for (std::uint64_t s = first(); s < next_; ++s)
    if (is_finished(s, first_unfinished)) return true;
  return next_ > kKept;  // so many are never under way
}

std::string History::text(std::size_t most, std::uint64_t first_unfinished) const {
  std::string text;
  for (std::uint64_t s = std::max(first(), next_ - std::min<std::uint64_t>(next_, most)); s < next_;
       ++s) {
    text += fmt::format("{}{}\n", describe(entries_[s % kKept].posting),
                        is_finished(s, first_unfinished) ? "" : ", unfinished");
  }
  return text;
}

std::string History::last() const {
  return next_ == 0 ? std::string() : describe(entries_[(next_ - 1) % kKept].posting);
}

std::vector<std::uint64_t> History::fingerprints() const {
  std::vector<std::uint64_t> all;
  for (std::uint64_t s = first(); s < next_; ++s) all.push_back(entries_[s % kKept].fingerprint);
  return all;
}

std::string History::describe_kept(std::size_t i) const {
  return describe(entries_[(first() + i) % kKept].posting);
}

}  // namespace sg::dist
