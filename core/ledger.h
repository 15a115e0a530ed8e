// The ledger of one rank: live and peak bytes by kind and tier, and traffic by collective.
#pragma once

#include <algorithm>
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

/// What a stretch of work books in the device tier and gives back before it ends: how far each
/// kind, and their sum, rises above what was alive before. That is all that its bookings change, so
/// it stands for them when the work is repeated without its allocations (a CUDA graph). Storages
/// that are made while it is Rank::rise add to it, on whatever thread they die.
class Rise {
 public:
  void add(Kind kind, std::int64_t bytes);
  std::int64_t of(Kind kind) const;
  std::int64_t total() const;

 private:
  struct Level {
    std::int64_t now = 0, top = 0;
    void add(std::int64_t bytes) { top = std::max(top, now += bytes); }
  };
  mutable std::mutex mutex_;
  std::array<Level, kKinds> kinds_;
  Level total_;
};

/// Counters of one rank. Memory may be booked from any thread (a tensor can die on another one);
/// traffic likewise.
class Ledger {
 public:
  /// Books `bytes` more (or fewer, if negative). Throws if a limit on (kind, device) would be
  /// passed.
  void book(Kind kind, Tier tier, std::int64_t bytes);
  /// Books what comes and is gone again: peaks change, and the limit holds.
  void book(const Rise& rise);
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
    void add(std::int64_t bytes);
    void rise_to(std::int64_t bytes);
  };
  void check_limit(std::string_view what, std::int64_t bytes) const;
  std::array<std::array<Counter, kTiers>, kKinds> kinds_;
  std::array<Counter, kTiers> totals_;
  std::atomic<std::int64_t> limit_{0};
  mutable std::mutex mutex_;
  std::array<std::map<std::string, Traffic, std::less<>>, 3> traffic_;
};

}  // namespace sg
