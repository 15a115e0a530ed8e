// Direct convolution whose vector lanes are neighbouring output channels (after Georganas et al.,
// "Anatomy of high-performance deep learning convolutions on SIMD architectures", SC 2018): a tile
// of pixels times channel vectors stays in registers while all taps and input channels pass; every
// input value is broadcast. Inputs are packed with their padding, one image at a time, so that the
// loops have no bounds to check and stay in the second-level cache.
//
// A packed image is [blocks][rows][columns][block]: blocks of 16 channels, or of one channel
// (planes) for images of few channels. A forward pass is a correlation with a list of taps; the
// gradient of the input is the same correlation over the output's gradient, once for each phase of
// the stride; the gradient of the weight sums broadcast inputs times vectors of the output's
// gradient over pixels.
#pragma once

#include <cstdint>

#include "core/kernels/isa.h"

namespace sg::kernels {

inline constexpr std::int64_t kConvBlock = 16;

/// Copies a window of an image, zeros outside it, into a packed image.
struct ConvPackImage {
  const float* from;  // element (c, y, x) at c * sc + y * sy + x * sx
  std::int64_t sc, sy, sx, channels, h, w;
  std::int64_t top, left;  // source position of the packed (0, 0); negative in the padding
  std::int64_t rows, columns, block;  // of the packed image; channels beyond the last are zeros
  float* to;
  const float* mask = nullptr;  // with from's strides: values count where mask > 0, else they are 0
  double* sums = nullptr;  // [channels], sums over the pixels are added; the window holds the image
};

/// Orders weights for ConvForward: [lane group][block][tap][channel of block][lane], zeros beyond
/// lanes and channels. Groups have 2 * lanes lanes; the last has `lanes` if that is enough.
struct ConvPackWeights {
  const float* from;  // element (lane, channel, tap) at lane * sl + channel * sc + taps[tap]
  std::int64_t sl, sc, lanes, channels;
  const std::int64_t* taps;
  std::int64_t tap_count, block;  // block as in the packed image that they will meet
  float* to;
};

/// Memory that will be read next, fetched into the second-level cache while the loops compute:
/// packing the next image otherwise waits for memory, a tenth of the time of a layer of 16
/// channels.
struct ConvPrefetch {
  static constexpr int kRanges = 3;
  const char* from[kRanges] = {};
  std::int64_t lines[kRanges] = {};  // of 64 bytes
};

/// One group of lanes over rows of output pixels. STEP floats of `x` are between the patches of
/// neighbouring pixels.
struct ConvForward {
  const float* x;    // packed: patch of the first pixel
  std::int64_t row;  // between patches of neighbouring rows
  int step;          // 1, 2 (planes), 16, 32 (blocks of 16)
  const std::int64_t*
      taps;  // offsets in x; for planes every (tap, channel) in the order of the weights
  std::int64_t tap_count;
  std::int64_t blocks, block_stride,
      last_channels;  // blocks of 16: the last may have fewer channels
  const float* w;
  const float* bias;  // [lanes of the group], or null
  float* y;
  std::int64_t y_row, y_pixel,
      y_lane;                // between rows, pixels and lanes (1, or a plane for row-major outputs)
  std::int64_t lanes;        // valid ones, at most those of the group
  std::int64_t rows, width;  // of y: pooled ones where `index` is given
  bool relu;
  ConvPrefetch next;
  std::uint8_t*
      index;  // null, or positions of the maxima of 2x2 windows after relu; 4: none above 0
};

/// Adds to dw[run][lanes of the group] sums over pixels of x[run] * dy[lane].
struct ConvWeight {
  const float* x;
  std::int64_t x_pixel, x_row, x_image;
  const float* dy;
  std::int64_t dy_pixel, dy_row, dy_image,
      dy_vector;  // dy_vector: between the vectors of the group
  std::int64_t images, rows, width;
  ConvPrefetch next;
  std::int64_t run, vectors;  // run at most longest_run[vectors - 1]
  float* dw;
};

struct ConvDirectTable {
  std::int64_t lanes;           // of a vector
  std::int64_t longest_run[2];  // with one vector, with two
  void (*pack_image)(const ConvPackImage&);
  void (*pack_weights)(const ConvPackWeights&);
  void (*forward)(const ConvForward&);
  void (*weight)(const ConvWeight&);
};
SG_ISA_TABLE(ConvDirectTable, conv_direct)

}  // namespace sg::kernels
