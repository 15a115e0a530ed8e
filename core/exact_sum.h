// A sum of doubles without rounding: whatever the order and however the terms are split over
// threads and ranks, the sum has the same bits. The accumulator is Kulisch's: one fixed-point
// number wide enough for every double (Kulisch and Miranker, "The arithmetic of the digital
// computer: a new approach", SIAM Review 28, 1986).
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "core/kernels/host_device.h"

namespace sg {

/// A double as the sum takes it: significand 2^(shift - 1074), a shift of 0 to 2045.
struct ExactTerm {
  enum Flag : std::uint8_t { finite, nan, plus_infinity, minus_infinity };
  std::uint64_t significand;  ///< below 2^53
  int shift;
  bool negative;
  Flag flag;

  SG_HD static ExactTerm of(double value) {
    const auto bits = __builtin_bit_cast(std::uint64_t, value);
    constexpr std::uint64_t kFraction = (std::uint64_t{1} << 52) - 1;
    const int exponent = static_cast<int>(bits >> 52) & 0x7ff;
    const bool negative = (bits >> 63) != 0;
    const std::uint64_t fraction = bits & kFraction;
    if (exponent == 0x7ff)
      return {0, 0, negative, fraction != 0 ? nan : negative ? minus_infinity : plus_infinity};
    if (exponent == 0) return {fraction, 0, negative, finite};
    return {fraction | (kFraction + 1), exponent - 1, negative, finite};
  }
};

/// A sum that many threads add to at once: pieces of 32 bits of the number, from the lowest on,
/// each summed in a word of 64. Nothing is carried from word to word, and additions of integers
/// commute, so their order is free. Three words more count what is no number. 2^30 terms fit.
struct ExactPieces {
  static constexpr int kPieces = 66;
  static constexpr int kWords = kPieces + 3;

  /// The terms of one thread as long as they are of like size, so that it seldom meets the others.
  /// `Add` is called as add(word, value) for what is to be added to the words.
  struct Window {
    int first = 0;
    std::int64_t sums[3] = {};

    template <class Add>
    SG_HD void add(double value, const Add& add) {
      const ExactTerm term = ExactTerm::of(value);
      if (term.flag != ExactTerm::finite) return add(kPieces - 1 + term.flag, std::int64_t{1});
      if (term.significand == 0) return;
      if (term.shift / 32 != first) {
        close(add);
        first = term.shift / 32;
      }
      // Of 53 bits, shifted by at most 31.
      const int offset = term.shift % 32;
      const std::uint64_t low = term.significand << offset;
      const std::uint64_t high = (term.significand >> 1) >> (63 - offset);
      const std::int64_t pieces[3] = {static_cast<std::int64_t>(low & 0xffffffff),
                                      static_cast<std::int64_t>(low >> 32),
                                      static_cast<std::int64_t>(high)};
      for (int i = 0; i < 3; ++i) sums[i] += term.negative ? -pieces[i] : pieces[i];
    }
    template <class Add>
    SG_HD void close(const Add& add) {
      for (int i = 0; i < 3; ++i) {
        if (sums[i] != 0) add(first + i, sums[i]);
        sums[i] = 0;
      }
    }
  };
};

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
  void add(double value);
  /// Adds the terms of another sum. add and merge commute and associate exactly.
  void merge(const ExactSum& other);
  /// Adds the sum in ExactPieces' words; another length throws.
  void merge_pieces(std::span<const std::int64_t> words);
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
  static constexpr std::uint64_t kFlags[] = {0, kNan, kPlusInfinity, kMinusInfinity};
  std::uint64_t& flags() { return words_[kDigits]; }
  std::uint64_t flags() const { return words_[kDigits]; }
  Words words_{};
};

}  // namespace sg
