// The ledger of one rank: live and peak bytes by kind and tier, and traffic by collective.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "core/device.h"

namespace sg {

/// What bytes are for. `gathered`: full units that are alive while somebody uses them. `buffers`:
/// partial gradients in flight, scratch and module buffers. `activations`: everything else that an
/// op makes.
enum class Kind : std::uint8_t { parameters, gradients, optimizer, gathered, buffers, activations };
inline constexpr int kKinds = 6;
std::string_view name_of(Kind kind);

/// Which part of a program traffic belongs to; only training is predicted.
enum class Phase : std::uint8_t { training, evaluation, inspection };
std::string_view name_of(Phase phase);

struct Traffic {
  std::int64_t calls = 0;
  std::int64_t bytes = 0;  ///< bytes that this rank sends
  bool operator==(const Traffic&) const = default;
};

/// Counters of one rank. Memory may be booked from any thread (a tensor can die on another one);
/// traffic likewise.
class Ledger {
 public:
  /// Books `bytes` more (or fewer, if negative). Throws if a limit on (kind, device) would be
  /// passed.
  void book(Kind kind, Tier tier, std::int64_t bytes);
  std::int64_t live(Kind kind, Tier tier = Tier::device) const;
  std::int64_t peak(Kind kind, Tier tier = Tier::device) const;
  /// Live bytes of all kinds in a tier, and the highest that sum ever was.
  std::int64_t live_total(Tier tier = Tier::device) const;
  std::int64_t peak_total(Tier tier = Tier::device) const;
  /// Peaks start again from what is alive now.
  void reset_peaks();
  /// Largest sum of live bytes of all kinds in the device tier; an allocation beyond it is an
  /// error. 0: no limit.
  void set_limit(std::int64_t bytes) { limit_.store(bytes); }
  std::int64_t limit() const { return limit_.load(); }

  /// Books one call of a collective that sends `bytes` from this rank.
  void book_traffic(Phase phase, std::string_view collective, std::int64_t bytes);
  Traffic traffic(Phase phase, std::string_view collective) const;
  std::map<std::string, Traffic, std::less<>> traffic(Phase phase) const;
  void reset_traffic();

 private:
  static constexpr int kTiers = 3;
  struct Counter {
    std::atomic<std::int64_t> live{0}, peak{0};
    std::int64_t add(std::int64_t bytes);
  };
  std::array<std::array<Counter, kTiers>, kKinds> kinds_;
  std::array<Counter, kTiers> totals_;
  std::atomic<std::int64_t> limit_{0};
  mutable std::mutex mutex_;
  std::array<std::map<std::string, Traffic, std::less<>>, 3> traffic_;
};

}  // namespace sg
