// Backward of few-channel convolutions with max pooling, and the packing it needs.
#include "core/kernels/isa/conv_direct.h"
#include "core/kernels/isa/conv_pixels.h"

namespace sg::kernels::SG_ISA {
namespace {

using std::int64_t;
using F32 = Vector<float>;
using I32 = Vector<std::int32_t>;
constexpr int kWidth = kLanes<float>;

// Rows of a patch that are summed in registers at a time.
template <int kVectors>
constexpr int most_rows = kConvAccumulators / kVectors < 6 ? kConvAccumulators / kVectors : 6;

template <int kRows, int kVectors>
void weight_rows(const ConvSparseWeight& a, int64_t first) {
  // Two sums in turn: one alone would wait for each product.
  constexpr int kChains = 2 * kRows * kVectors <= kConvAccumulators ? 2 : 1;
  F32 sum[kChains][kRows][kVectors];
  for (int k = 0; k < kChains; ++k)
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < kVectors; ++v) sum[k][r][v] = F32{};
  const int64_t row = a.row;
  const float* x = a.x + first * row;
  int64_t i = 0;
  for (; i + kChains <= a.count; i += kChains)
    for (int k = 0; k < kChains; ++k) {
      const F32 value = splat(a.values[i + k]);
      const float* patch = x + a.patches[i + k];
      for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < kVectors; ++v)
          sum[k][r][v] =
              multiply_add<float>(value, load(patch + r * row + v * kWidth), sum[k][r][v]);
    }
  for (; i < a.count; ++i)
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < kVectors; ++v)
        sum[0][r][v] = multiply_add<float>(
            splat(a.values[i]), load(x + a.patches[i] + r * row + v * kWidth), sum[0][r][v]);
  float* to = a.dw + first * kVectors * kWidth;
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v, to += kWidth) {
      F32 total = sum[0][r][v];
      if constexpr (kChains == 2) total += sum[1][r][v];
      store(to, load(to) + total);
    }
}

template <int kRows, int kVectors>
void input_rows(const ConvSparseInput& a, int64_t first) {
  F32 sum[kRows][kVectors];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) sum[r][v] = F32{};
  const int64_t filter = a.rows * kVectors * kWidth;
  const float* filters = a.w + first * kVectors * kWidth;
  for (int64_t i = 0; i < a.count; ++i) {
    const F32 value = splat(a.values[i]);
    const float* w = filters + a.outs[i] * filter;
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < kVectors; ++v)
        sum[r][v] = multiply_add<float>(value, load(w + (r * kVectors + v) * kWidth), sum[r][v]);
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) {
      float* to = a.dx + (first + r) * a.row + v * kWidth;
      store(to, load(to) + sum[r][v]);
    }
}

// All rows, as many at a time as fit: f.template operator()<rows>(first).
template <int kVectors, class F>
SG_HD void in_row_groups(int64_t rows, F&& f) {
  constexpr int kMost = most_rows<kVectors>;
  int64_t first = 0;
  for (; first + kMost <= rows; first += kMost) f.template operator()<kMost>(first);
  const int64_t rest = rows - first;
  if constexpr (kMost > 5)
    if (rest == 5) return f.template operator()<5>(first);
  if constexpr (kMost > 4)
    if (rest == 4) return f.template operator()<4>(first);
  if constexpr (kMost > 3)
    if (rest == 3) return f.template operator()<3>(first);
  if constexpr (kMost > 2)
    if (rest == 2) return f.template operator()<2>(first);
  if constexpr (kMost > 1)
    if (rest == 1) return f.template operator()<1>(first);
}

// Calls f.template operator()<vectors>() for the number of vectors.
template <class F>
SG_HD void with_vectors(int64_t vectors, F&& f) {
  static_assert(kConvMostVectors == 6);
  switch (vectors) {
    case 1:
      return f.template operator()<1>();
    case 2:
      return f.template operator()<2>();
    case 3:
      return f.template operator()<3>();
    case 4:
      return f.template operator()<4>();
    case 5:
      return f.template operator()<5>();
    default:
      return f.template operator()<6>();
  }
}

// Lane l of v[index[l]].
SG_HD F32 permute(F32 v, I32 index) {
#if defined(__AVX512F__)
  // With a mask of all lanes: GCC 12 warns of the other form.
  return (F32)_mm512_maskz_permutexvar_ps(static_cast<__mmask16>(-1), (__m512i)index, (__m512)v);
#elif defined(__AVX2__)
  return (F32)_mm256_permutevar8x32_ps((__m256)v, (__m256i)index);
#else
  F32 result;
  for (int l = 0; l < kWidth; ++l) result[l] = v[index[l]];
  return result;
#endif
}

constexpr int kMostInterleaved = 16;

// For channels c of kWidth pixels: value f = pixel * c + channel of the interleaved order is lane f
// % kWidth of vector f / kWidth.
struct Interleaving {
  I32 pixel[kMostInterleaved], channel[kMostInterleaved];  // of each lane of interleaved vector k
  I32 lane[kMostInterleaved], vector[kMostInterleaved];    // of each pixel of channel k
  explicit Interleaving(int64_t channels) {
    std::int32_t p = 0, c = 0;
    for (int64_t k = 0; k < channels; ++k)
      for (int l = 0; l < kWidth; ++l) {
        pixel[k][l] = p;
        channel[k][l] = c;
        lane[c][p] = l;
        vector[c][p] = static_cast<std::int32_t>(k);
        if (++c == channels) {
          c = 0;
          ++p;
        }
      }
  }
};

// Rows that follow each other on both sides are one.
ConvInterleave joined(ConvInterleave a) {
  if (a.plane_row == a.columns && a.pixel_row == a.columns * a.channels) {
    a.columns *= a.rows;
    a.rows = 1;
  }
  return a;
}

}  // namespace

void conv_sparse_weight(const ConvSparseWeight& a) {
  with_vectors(a.vectors, [&]<int kVectors>() {
    in_row_groups<kVectors>(
        a.rows, [&]<int kRows>(int64_t first) { weight_rows<kRows, kVectors>(a, first); });
  });
}

void conv_sparse_input(const ConvSparseInput& a) {
  with_vectors(a.vectors, [&]<int kVectors>() {
    in_row_groups<kVectors>(
        a.rows, [&]<int kRows>(int64_t first) { input_rows<kRows, kVectors>(a, first); });
  });
}

void conv_interleave(const ConvInterleave& rows, const float* planes, float* pixels) {
  const ConvInterleave a = joined(rows);
  const int64_t channels = a.channels, plane = a.plane;
  const int64_t vectors = channels <= kMostInterleaved ? a.columns / kWidth : 0;
  const Interleaving order(vectors > 0 ? channels : 0);
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* from = planes + r * a.plane_row;
    float* to = pixels + r * a.pixel_row;
    for (int64_t i = 0; i < vectors * kWidth; i += kWidth)
      for (int64_t k = 0; k < channels; ++k) {
        const I32 pixel = order.pixel[k], channel = order.channel[k];
        F32 v = permute(load(from + i), pixel);
        for (int64_t c = 1; c < channels; ++c)
          v = channel == static_cast<std::int32_t>(c) ? permute(load(from + c * plane + i), pixel)
                                                      : v;
        store(to + i * channels + k * kWidth, v);
      }
    for (int64_t i = vectors * kWidth; i < a.columns; ++i)
      for (int64_t c = 0; c < channels; ++c) to[i * channels + c] = from[c * plane + i];
  }
}

void conv_separate(const ConvInterleave& rows, const float* pixels, float* planes) {
  const ConvInterleave a = joined(rows);
  const int64_t channels = a.channels, plane = a.plane;
  const int64_t vectors = channels <= kMostInterleaved ? a.columns / kWidth : 0;
  const Interleaving order(vectors > 0 ? channels : 0);
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* from = pixels + r * a.pixel_row;
    float* to = planes + r * a.plane_row;
    for (int64_t i = 0; i < vectors * kWidth; i += kWidth)
      for (int64_t c = 0; c < channels; ++c) {
        const I32 lane = order.lane[c], vector = order.vector[c];
        F32 v = permute(load(from + i * channels), lane);
        for (int64_t k = 1; k < channels; ++k)
          v = vector == static_cast<std::int32_t>(k)
                  ? permute(load(from + i * channels + k * kWidth), lane)
                  : v;
        store(to + c * plane + i, v);
      }
    for (int64_t i = vectors * kWidth; i < a.columns; ++i)
      for (int64_t c = 0; c < channels; ++c) to[c * plane + i] = from[i * channels + c];
  }
}

int64_t conv_sparse_gather(const float* dy, const std::uint8_t* index, int64_t n,
                           const std::int32_t* patches, const std::int32_t* shift,
                           std::int32_t* offsets, float* values, double* sum) {
  int64_t count = 0;
  float total = 0;
#if defined(__AVX512F__)
  constexpr auto kAll = static_cast<__mmask16>(-1);
  const __m512i shifts = _mm512_maskz_loadu_epi32(0x1f, shift);
  F32 totals{};
  for (int64_t i = 0; i < n; i += kWidth) {
    const auto lanes = static_cast<__mmask16>(n - i < kWidth ? (1u << (n - i)) - 1 : 0xffffu);
    const auto bytes = (ConvBytes)_mm_mask_loadu_epi8(_mm_set1_epi8(4), lanes, index + i);
    const auto at = (__m512i) __builtin_convertvector(bytes, I32);
    const __mmask16 keep = _mm512_cmplt_epi32_mask(at, _mm512_set1_epi32(4));
    // Counted at once: GCC 12 may spill the 16 bits of a mask and count 32.
    const int kept = __builtin_popcount(_cvtmask16_u32(keep));
    const __m512 value = _mm512_maskz_loadu_ps(keep, dy + i);
    const auto offset = (__m512i)((I32)_mm512_maskz_loadu_epi32(lanes, patches + i) +
                                  (I32)_mm512_maskz_permutexvar_epi32(kAll, at, shifts));
    // Compressed in a register: compressing to memory is microcode on some processors.
    _mm512_storeu_si512(offsets + count, _mm512_maskz_compress_epi32(keep, offset));
    _mm512_storeu_ps(values + count, _mm512_maskz_compress_ps(keep, value));
    totals += (F32)value;
    count += kept;
  }
  for (int l = 0; l < kWidth; ++l) total += totals[l];
#else
  for (int64_t i = 0; i < n; ++i) {
    // Written always and kept or not: no branch to mispredict.
    const unsigned at = index[i];
    offsets[count] = patches[i] + shift[at];
    values[count] = dy[i];
    total += at < 4 ? dy[i] : 0.0f;
    count += at < 4 ? 1 : 0;
  }
#endif
  *sum += static_cast<double>(total);
  return count;
}

}  // namespace sg::kernels::SG_ISA
