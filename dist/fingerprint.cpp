#include "dist/fingerprint.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "core/check.h"
#include "dist/arrows.h"

namespace sg::dist {
namespace {

constexpr std::size_t kTextWords = 24;

// The text of every rank, cut to what fits.
std::vector<std::string> exchange_text(Comm& comm, const std::string& mine) {
  char text[kTextWords * 8] = {};
  mine.copy(text, sizeof text - 1);
  std::uint64_t words[kTextWords];
  std::memcpy(words, text, sizeof words);
  const std::vector<std::uint64_t> all = exchange(comm, "control", words);
  std::vector<std::string> texts;
  for (std::size_t at = 0; at < all.size(); at += kTextWords)
    texts.emplace_back(reinterpret_cast<const char*>(&all[at]));
  return texts;
}

}  // namespace

void check_same_sequence(Comm& comm) {
  if (comm.size() == 1) return;
  const Scoped phase(current_rank().phase, Phase::inspection);
  const std::vector<std::uint64_t> mine = comm.fingerprints();
  const std::uint64_t last = mine.empty() ? 0 : mine.back();
  const std::vector<std::uint64_t> lasts = exchange(comm, "control", {&last, 1});
  if (std::all_of(lasts.begin(), lasts.end(), [&](auto f) { return f == lasts[0]; })) return;
  // Numbers agree, or the exchange itself would have found a difference: so do the histories'
  // lengths.
  const std::vector<std::uint64_t> all = exchange(comm, "control", mine);
  const std::size_t n = mine.size(), ranks = static_cast<std::size_t>(comm.size());
  std::size_t first = n, other = 0;
  for (std::size_t i = 0; i < n && first == n; ++i)
    for (std::size_t r = 1; r < ranks && first == n; ++r)
      if (all[r * n + i] != all[i]) first = i, other = r;
  const std::vector<std::string> texts = exchange_text(comm, comm.describe_started(first));
  fail("[step] rank {} is in {}, rank 0 in {}: all ranks must run the same program", other,
       texts[other], texts[0]);
}

bool debug_by_environment() {
  const char* value = std::getenv("SHARDGRAD_DEBUG");
  return value != nullptr && *value != '\0' && std::string_view(value) != "0";
}

}  // namespace sg::dist
