#include "core/exact_sum.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "core/check.h"

namespace sg {
namespace {

constexpr std::uint64_t kFraction = (std::uint64_t{1} << 52) - 1;
constexpr std::uint64_t kExponent = 0x7ff;

}  // namespace

ExactSum ExactSum::from_words(std::span<const std::uint64_t> words) {
  SG_CHECK(words.size() == kWords, "[exact_sum] a sum is {} words, got {}", kWords, words.size());
  SG_CHECK(
      words.back() <= (kNan | kPlusInfinity | kMinusInfinity),
      "[exact_sum] unknown flags {:#x} in the last of {} words; was it sent by another version?",
      words.back(), kWords);
  ExactSum sum;
  std::copy(words.begin(), words.end(), sum.words_.begin());
  return sum;
}

void ExactSum::add(double value) {
  const auto [significand, shift, negative, flag] = ExactTerm::of(value);
  if (flag != ExactTerm::finite) {
    flags() |= kFlags[flag];
    return;
  }
  const std::uint64_t low = significand << (shift & 63);
  const std::uint64_t high = (significand >> 1) >> (63 - (shift & 63));
  std::uint64_t* digit = &words_[shift >> 6];
  const std::uint64_t d0 = digit[0], d1 = digit[1];
  // A carry (or borrow) beyond the two digits is rare; beyond the last one it is two's complement's
  // wrap-around.
  if (!negative) {
    digit[0] = d0 + low;
    const std::uint64_t sum = d1 + high, carry = digit[0] < low;
    digit[1] = sum + carry;
    if (sum < high || digit[1] < carry)
      for (int i = 2; &digit[i] != &words_[kDigits] && ++digit[i] == 0; ++i) {
      }
  } else {
    digit[0] = d0 - low;
    const std::uint64_t difference = d1 - high, borrow = d0 < low;
    digit[1] = difference - borrow;
    if (d1 < high || difference < borrow)
      for (int i = 2; &digit[i] != &words_[kDigits] && digit[i]-- == 0; ++i) {
      }
  }
}

void ExactSum::merge(const ExactSum& other) {
  std::uint64_t carry = 0;
  for (int i = 0; i < kDigits; ++i) {
    const std::uint64_t sum = words_[i] + other.words_[i], total = sum + carry;
    carry = (sum < other.words_[i] || total < carry) ? 1 : 0;
    words_[i] = total;
  }
  flags() |= other.flags();
}

void ExactSum::merge_pieces(std::span<const std::int64_t> words) {
  SG_CHECK(words.size() == ExactPieces::kWords, "[exact_sum] pieces are {} words, got {}",
           ExactPieces::kWords, words.size());
  ExactSum sum;
  std::int64_t carry = 0;
  for (std::size_t i = 0; i < 2 * kDigits; ++i) {
    if (i < ExactPieces::kPieces) carry += words[i];
    sum.words_[i / 2] |= (static_cast<std::uint64_t>(carry) & 0xffffffff) << (i % 2 * 32);
    carry >>= 32;  // keeps its sign
  }
  for (std::size_t flag = ExactTerm::nan; flag <= ExactTerm::minus_infinity; ++flag)
    if (words[ExactPieces::kPieces - 1 + flag] != 0) sum.flags() |= kFlags[flag];
  merge(sum);
}

double ExactSum::value() const {
  using Limits = std::numeric_limits<double>;
  if ((flags() & kNan) != 0 || flags() == (kPlusInfinity | kMinusInfinity))
    return Limits::quiet_NaN();
  if (flags() != 0)
    return (flags() & kPlusInfinity) != 0 ? Limits::infinity() : -Limits::infinity();

  std::array<std::uint64_t, kDigits> digits;
  std::copy_n(words_.begin(), kDigits, digits.begin());
  const bool negative = (digits[kDigits - 1] >> 63) != 0;
  if (negative) {
    std::uint64_t carry = 1;
    for (std::uint64_t& digit : digits) {
      digit = ~digit + carry;
      carry = (carry != 0 && digit == 0) ? 1 : 0;
    }
  }
  int last = kDigits - 1;
  while (last > 0 && digits[last] == 0) --last;
  const int width =
      last * 64 + std::bit_width(digits[last]);  // the value is below 2^(width - 1074)

  // The pattern is put together from integers, so that a thread that flushes subnormals gets the
  // same one. Its fields are such that significand + (exponent << 52) is also right where rounding
  // up carries into the exponent.
  std::uint64_t pattern = digits[0];
  if (width > 53) {
    const int cut = width - 53;  // bits to drop
    const int word = cut / 64, offset = cut % 64;
    pattern = digits[word] >> offset;
    if (offset != 0 && word + 1 < kDigits) pattern |= digits[word + 1] << (64 - offset);
    pattern &= 2 * kFraction + 1;
    const int below = cut - 1;  // the highest dropped bit
    const bool half = ((digits[below / 64] >> (below % 64)) & 1) != 0;
    bool rest = (digits[below / 64] & ((std::uint64_t{1} << (below % 64)) - 1)) != 0;
    for (int i = 0; i < below / 64 && !rest; ++i) rest = digits[i] != 0;
    if (half && (rest || (pattern & 1) != 0)) ++pattern;
    pattern += static_cast<std::uint64_t>(cut) << 52;
    if (pattern >= kExponent << 52) pattern = kExponent << 52;
  }
  return std::bit_cast<double>(pattern | (std::uint64_t{negative} << 63));
}

}  // namespace sg
