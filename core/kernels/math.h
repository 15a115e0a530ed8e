// Elementary functions for kernels: in float they are branch-free, so that loops over them
// vectorize; in double they are the C library's. Every operation is rounded as written (no fma), so
// all instruction sets give the same bits. Errors are within 3 units in the last place of float
// over the whole range; infinities and NaN come out as in C.
#pragma once

// C's functions: an inline one of std:: could be linked into code for older processors.
#include <math.h>

#include <bit>
#include <cstdint>

#include "core/kernels/host_device.h"

namespace sg::kernels::math {

SG_HD float sqrt(float x) { return ::sqrtf(x); }
SG_HD double sqrt(double x) { return ::sqrt(x); }
SG_HD float abs(float x) { return ::fabsf(x); }
SG_HD double abs(double x) { return ::fabs(x); }
SG_HD float sin(float x) { return ::sinf(x); }
SG_HD double sin(double x) { return ::sin(x); }
SG_HD float cos(float x) { return ::cosf(x); }
SG_HD double cos(double x) { return ::cos(x); }
SG_HD float pow(float x, float e) { return ::powf(x, e); }
SG_HD double pow(double x, double e) { return ::pow(x, e); }

#if defined(__CUDACC__)
SG_HD float exp(float x) { return ::expf(x); }
SG_HD float log(float x) { return ::logf(x); }
SG_HD float log1p(float x) { return ::log1pf(x); }
SG_HD float expm1(float x) { return ::expm1f(x); }
SG_HD float tanh(float x) { return ::tanhf(x); }
SG_HD float erf(float x) { return ::erff(x); }
#else

/// 2^n for n in [-126, 127].
SG_HD float power_of_two(std::int32_t n) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(n + 127) << 23);
}

/// x = n ln(2) + r with |r| <= ln(2) / 2, ln(2) in two parts (Cody and Waite), for x within +-10^4.
struct ExpParts {
  float less_one;  ///< exp(r) - 1; the polynomial is Cephes' expf
  std::int32_t n;
};

SG_HD ExpParts exp_parts(float x) {
  const float magic =
      12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, which is then in the low bits
  const float shifted = x * 1.44269504088896341f + magic;
  const float n = shifted - magic;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return {p * (r * r) + r, std::bit_cast<std::int32_t>(shifted) - 0x4B400000};
}

SG_HD float exp(float x) {
  const float low =
      x < -104.0f ? -104.0f : x;  // below, and above 89, the result is 0 or infinite anyway
  const ExpParts e = exp_parts(low > 89.0f ? 89.0f : low);
  // In two factors, since 2^128 and results below the normal numbers are reached through
  // representable ones.
  const std::int32_t half = e.n >> 1;
  const float y = ((e.less_one + 1.0f) * power_of_two(half)) * power_of_two(e.n - half);
  return x != x ? x : y;
}

/// exp(x) - 1, without cancellation: 2^n (exp(r) - 1) + (2^n - 1).
SG_HD float expm1(float x) {
  const float low = x < -30.0f ? -30.0f : x;
  const ExpParts e = exp_parts(low > 30.0f ? 30.0f : low);
  const float scale = power_of_two(e.n);
  const float near = scale * e.less_one + (scale - 1.0f);
  const float far = exp(x);
  const float y = x > 30.0f ? far : near;
  return x != x ? x : y;
}

/// log(x) = e ln(2) + log(m), m in [sqrt(1/2), sqrt(2)); Cephes' logf.
SG_HD float log(float x) {
  const float normal = x < 1.17549435e-38f ? x * 8388608.0f : x;
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(normal);
  // Subtracting the bits of sqrt(1/2) puts the mantissa's break there.
  const std::int32_t exponent = static_cast<std::int32_t>(bits - 0x3F3504F3u) >> 23;
  const float m = std::bit_cast<float>(bits - (static_cast<std::uint32_t>(exponent) << 23)) - 1.0f;
  const float e = static_cast<float>(exponent) - (x < 1.17549435e-38f ? 23.0f : 0.0f);
  float p = 7.0376836292e-2f;
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  const float z = m * m;
  float y = m * z * p;
  y += e * -2.12194440e-4f;
  y -= 0.5f * z;
  float result = m + y;
  result += e * 0.693359375f;
  result = x == HUGE_VALF ? x : result;
  result = x == 0.0f ? -HUGE_VALF : result;
  return x < 0.0f || x != x ? __builtin_nanf("") : result;
}

/// log(1 + x), the rounding of 1 + x corrected to first order (Higham, "Accuracy and stability",
/// section 1.14.1).
SG_HD float log1p(float x) {
  const float u = 1.0f + x;
  const float d = u - 1.0f;
  const float y = log(u) * (x / (d == 0.0f ? 1.0f : d));
  const float tiny = d == 0.0f ? x : y;
  return x == HUGE_VALF ? x : tiny;
}

/// tanh by Cephes: a polynomial near 0, 1 - 2 / (exp(2 |x|) + 1) beyond.
SG_HD float tanh(float x) {
  const float z = abs(x);
  const float far = 1.0f - 2.0f / (exp(z + z) + 1.0f);
  const float s = x * x;
  float p = -5.70498872745e-3f;
  p = p * s + 2.06390887954e-2f;
  p = p * s - 5.37397155531e-2f;
  p = p * s + 1.33314422036e-1f;
  p = p * s - 3.33332819422e-1f;
  const float near = p * s * x + x;
  return z < 0.625f ? near : (x < 0.0f ? -far : far);
}

/// erf: an odd polynomial near 0, 1 - exp(q(|x|)) beyond (coefficients by N. Juffa, minimax).
SG_HD float erf(float x) {
  const float t = abs(x), s = x * x;
  const float c = t > 4.0f ? 4.0f : t;  // erf(4) rounds to 1
  float r = -1.72853470e-5f * c + 3.83197126e-4f;
  const float u = -3.88396438e-3f * c + 2.42546219e-2f;
  r = r * (c * c) + u;
  r = r * c - 1.06777877e-1f;
  r = r * c - 6.34846687e-1f;
  r = r * c - 1.28717512e-1f;
  r = r * c - c;
  const float far = 1.0f - exp(r);
  float p = -5.96761703e-4f;
  p = p * s + 4.99119423e-3f;
  p = p * s - 2.67681349e-2f;
  p = p * s + 1.12819925e-1f;
  p = p * s - 3.76125336e-1f;
  p = p * s + 1.28379166e-1f;
  const float near = p * x + x;
  const float y = t > 0.921875f ? (x < 0.0f ? -far : far) : near;
  return x != x ? x : y;
}
#endif

SG_HD double exp(double x) { return ::exp(x); }
SG_HD double log(double x) { return ::log(x); }
SG_HD double log1p(double x) { return ::log1p(x); }
SG_HD double expm1(double x) { return ::expm1(x); }
SG_HD double tanh(double x) { return ::tanh(x); }
SG_HD double erf(double x) { return ::erf(x); }

/// 1 / (1 + exp(-x)) without overflow.
template <class T>
SG_HD T sigmoid(T x) {
  const T e = exp(-abs(x));
  const T y = T(1) / (T(1) + e);
  return x < T(0) ? e * y : y;
}

}  // namespace sg::kernels::math
