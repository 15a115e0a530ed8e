// The rank-order sum: every number of sources, lengths around vectors and tiles, and every place
// where the result may go.
#include "core/kernels/fold.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>
#include <vector>

namespace sg::kernels {
namespace {

/// Of very different sizes, so that another order gives other bits.
template <class T>
std::vector<std::vector<T>> wild(std::int64_t count, std::int64_t n) {
  std::mt19937_64 random(static_cast<std::uint64_t>(count * 1000 + n));
  std::vector<std::vector<T>> sources(static_cast<std::size_t>(count));
  for (auto& source : sources) {
    for (std::int64_t i = 0; i < n; ++i) {
      const std::uint64_t bits = random();
      const double fraction = static_cast<double>(static_cast<std::int64_t>(bits)) * 0x1p-63;
      source.push_back(static_cast<T>(std::ldexp(fraction, static_cast<int>(bits % 24) - 12)));
    }
  }
  return sources;
}

template <class T>
std::vector<T> in_order(const std::vector<std::vector<T>>& sources) {
  std::vector<T> sum = sources[0];
  for (std::size_t s = 1; s < sources.size(); ++s)
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += sources[s][i];
  return sum;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::bit_cast<Bits>(a[i]) != std::bit_cast<Bits>(b[i])) return false;
  return a.size() == b.size();
}

template <class T>
std::vector<const T*> pointers(const std::vector<std::vector<T>>& sources) {
  std::vector<const T*> from;
  for (const auto& source : sources) from.push_back(source.data());
  return from;
}

template <class T>
class Fold : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(Fold, Types);

TYPED_TEST(Fold, AddsStrictlyInTheOrderGiven) {
  using T = TypeParam;
  for (std::int64_t count = 1; count <= 24; ++count) {
    for (const std::int64_t n : {0, 1, 15, 31, 64, 65, 127, 1023, 1024, 2049, 3000}) {
      const auto sources = wild<T>(count, n);
      const std::vector<T> expected = in_order(sources);
      if (count > 2 && n > 1000) {
        ASSERT_FALSE(same_bits(expected, in_order(std::vector(sources.rbegin(), sources.rend()))))
            << "the values do not show the order";
      }
      std::vector<T> out(static_cast<std::size_t>(n) + 1, T(42));
      fold_kernels().of<T>().sum(out.data(), pointers(sources).data(), count, n);
      EXPECT_EQ(out.back(), T(42)) << "written beyond the end: " << count << " sources of " << n;
      out.pop_back();
      EXPECT_TRUE(same_bits(out, expected)) << count << " sources of " << n;
    }
  }
}

TYPED_TEST(Fold, TheResultMayTakeTheMemoryOfAnySource) {
  using T = TypeParam;
  const std::int64_t n = 2100;
  for (const std::int64_t count : {1, 2, 3, 8, 9, 15, 16, 17, 23}) {
    for (std::int64_t place = 0; place < count; ++place) {
      auto sources = wild<T>(count, n);
      const auto before = sources;
      const auto at = static_cast<std::size_t>(place);
      fold_kernels().of<T>().sum(sources[at].data(), pointers(sources).data(), count, n);
      EXPECT_TRUE(same_bits(sources[at], in_order(before)))
          << "source " << place << " of " << count;
      for (std::size_t s = 0; s < sources.size(); ++s)
        EXPECT_TRUE(s == at || same_bits(sources[s], before[s])) << "source " << s << " changed";
    }
  }
}

TYPED_TEST(Fold, OneSpanMayBeSeveralSources) {
  using T = TypeParam;
  for (const std::size_t count : {2, 5, 12}) {
    std::vector<T> x = wild<T>(1, 2500)[0];
    const std::vector<T> expected = in_order(std::vector<std::vector<T>>(count, x));
    const std::vector<const T*> from(count, x.data());
    fold_kernels().of<T>().sum(x.data(), from.data(), static_cast<std::int64_t>(count), 2500);
    EXPECT_TRUE(same_bits(x, expected)) << count << " times";
  }
}

TYPED_TEST(Fold, SpansNeedNoAlignment) {
  using T = TypeParam;
  const auto sources = wild<T>(3, 1000);
  std::vector<std::vector<T>> parts;
  std::vector<const T*> from;
  for (std::size_t s = 0; s < 3; ++s) {
    const auto shift = static_cast<std::ptrdiff_t>(s + 1);
    parts.emplace_back(sources[s].begin() + shift, sources[s].begin() + shift + 900);
    from.push_back(sources[s].data() + shift);
  }
  std::vector<T> out(907);
  fold_kernels().of<T>().sum(out.data() + 7, from.data(), 3, 900);
  EXPECT_TRUE(same_bits(std::vector<T>(out.begin() + 7, out.end()), in_order(parts)));
}

TYPED_TEST(Fold, InfinitiesAndSignedZerosAddAsEverywhere) {
  using T = TypeParam;
  const T inf = std::numeric_limits<T>::infinity();
  for (const std::size_t n : {std::size_t{3}, std::size_t{99}}) {  // the tail alone, and vectors
    const std::vector<T> a(n, inf), b(n, -inf), zero(n, T(-0.0));
    std::vector<T> out(n);
    const T* opposite[] = {a.data(), zero.data(), b.data()};
    fold_kernels().of<T>().sum(out.data(), opposite, 3, static_cast<std::int64_t>(n));
    for (const T x : out) EXPECT_TRUE(std::isnan(x));
    const T* zeros[] = {zero.data(), zero.data()};
    fold_kernels().of<T>().sum(out.data(), zeros, 2, static_cast<std::int64_t>(n));
    for (const T x : out) EXPECT_TRUE(x == 0 && std::signbit(x)) << "-0 + -0 is -0";
  }
}

}  // namespace
}  // namespace sg::kernels
