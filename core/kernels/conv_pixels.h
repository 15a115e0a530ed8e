// Convolution loops for few channels.
//
// Forward, few output channels: lanes are neighbouring pixels of a row, every weight is broadcast.
// Images are packed in planes, as in conv_direct.h.
//
// Backward of a convolution with relu and max pooling: only one pixel of a pooling window has a
// gradient, so each window and channel is visited once and its patch multiplied, a quarter of the
// dense products. Images are packed pixel by pixel
// ([rows][columns][channels]), so that a patch is kh runs of kw * channels neighbouring values, and
// lanes run along those.
#pragma once

#include <cstdint>

#include "core/kernels/isa.h"

namespace sg::kernels {

inline constexpr int kConvPixelsGroup = 6;  // output channels that share a tile, at most

struct ConvPixels {
  const float* x;  // packed planes: patch of the first pixel; a vector beyond each row may be read
  std::int64_t row;          // between patches of neighbouring rows
  const std::int64_t* taps;  // offsets in x of all taps and channels
  std::int64_t tap_count;
  const float* w;     // [tap][outs]
  const float* bias;  // [outs] or null
  std::int64_t outs;  // at most kConvPixelsGroup
  float* y;
  std::int64_t y_row, y_out;  // between rows, and between output channels
  std::int64_t rows, width;   // of y
  bool relu;
  std::uint8_t* index;  // null, or as in ConvForward; y then has half the rows and columns
};

/// Where a channel has gradients, and their values.
struct ConvSparseWeight {
  const float* x;               // packed by pixels; a vector beyond the last is readable
  std::int64_t row;             // between the rows of a patch
  const std::int32_t* patches;  // offsets in x
  const float* values;
  std::int64_t count;
  std::int64_t rows, vectors;  // of a patch: kh, and vectors of a row
  float* dw;  // [rows][vectors * lanes]: sum over patches of value * patch is added
};

/// One pixel of the output, and the channels that have gradients there.
struct ConvSparseInput {
  const float* w;  // [out][rows][vectors * lanes], zeros beyond a row's end
  const std::int32_t* outs;
  const float* values;
  std::int64_t count;
  std::int64_t rows, vectors;
  float* dx;  // its patch: sum over channels of value * filter is added
  std::int64_t row;
};

/// Strides between planes and between rows, in floats; a row has `columns` pixels.
struct ConvInterleave {
  std::int64_t channels, rows, columns;
  std::int64_t plane, plane_row, pixel_row;
};

struct ConvPixelsTable {
  std::int64_t lanes;
  std::int64_t most_vectors;  // of a patch's row
  void (*forward)(const ConvPixels&);
  void (*sparse_weight)(const ConvSparseWeight&);
  void (*sparse_input)(const ConvSparseInput&);
  /// Rows of planes to rows of [n][channels], and back.
  void (*interleave)(const ConvInterleave&, const float* planes, float* pixels);
  void (*separate)(const ConvInterleave&, const float* pixels, float* planes);
  /// The windows of one channel, n of them, that have a gradient: their patches[i] + shift[index]
  /// and values, in order; returns how many. Up to a vector beyond them may be written. The
  /// gradient's sum is added to `sum`.
  std::int64_t (*gather)(const float* dy, const std::uint8_t* index, std::int64_t n,
                         const std::int32_t* patches, const std::int32_t* shift,
                         std::int32_t* offsets, float* values, double* sum);
};
SG_ISA_TABLE(ConvPixelsTable, conv_pixels)

}  // namespace sg::kernels
