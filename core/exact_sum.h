// A sum of doubles without rounding: whatever the order and however the terms are split over
// threads and ranks, the sum has the same bits. The accumulator is Kulisch's: one fixed-point
// number wide enough for every double (Kulisch and Miranker, "The arithmetic of the digital
// computer: a new approach", SIAM Review 28, 1986).
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace sg {

class ExactSum {
 public:
  /// Words that it is sent as: kDigits of the number, one of flags.
  static constexpr int kWords = 35;
  using Words = std::array<std::uint64_t, kWords>;

  ExactSum() = default;
  /// The sum that `words` gave; a length other than kWords or unknown flags throw.
  static ExactSum from_words(std::span<const std::uint64_t> words);

  /// Adds any double; infinities and NaN are noted and decide value(). 2^77 terms fit, whatever
  /// their size.
  void add(double term);
  /// Adds the terms of another sum. add and merge commute and associate exactly.
  void merge(const ExactSum& other);
  /// Adds sums in the form that ranks exchange.
  void merge_words(std::span<const std::uint64_t> words) { merge(from_words(words)); }

  /// The sum, rounded once, to nearest and ties to even; infinite beyond the largest double. NaN if
  /// a term was NaN or both infinities occurred. Independent of flush-to-zero modes.
  double value() const;
  /// Equal for equal sums, however they came about.
  const Words& words() const { return words_; }
  bool operator==(const ExactSum&) const = default;

 private:
  // The number is two's complement, its lowest bit worth 2^-1074 (the smallest subnormal). The
  // largest double takes 2098 bits; the other 78 are the sign and room for carries.
  static constexpr int kDigits = kWords - 1;
  static constexpr std::uint64_t kNan = 1, kPlusInfinity = 2, kMinusInfinity = 4;
  std::uint64_t& flags() { return words_[kDigits]; }
  std::uint64_t flags() const { return words_[kDigits]; }
  Words words_{};
};

}  // namespace sg
