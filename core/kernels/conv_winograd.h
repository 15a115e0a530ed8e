// Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray, "Fast algorithms for convolutional
// neural networks", CVPR 2016): 2x2 outputs of a 3x3 convolution of stride 1 from 16 products
// instead of 36. With the paper's matrices (d: 4x4 inputs, g: the filter, Y: a tile of outputs),
//
//   forward            Y = A^T [(G g G^T) . (B^T d B)] A
//   weight's gradient  dg = G^T [sum over tiles of (A dY A^T) . (B^T d B)] G
//   input's gradient   dd = B [(G g G^T) . (A dY A^T)] B^T, added up where tiles overlap
//
// where "." runs over 16 positions, a matrix product over channels each. Only halves, sums and
// differences are involved, so rounding stays near that of the direct sum.
//
// Transformed tiles are [position][channel block][tile][16 channels]. All channel counts are
// multiples of 16; images are channels-last. A call covers `rows` rows of tiles of one image, from
// row `first`; tile (ty, tx) has outputs (2 ty, 2 tx) to (2 ty + 1, 2 tx + 1).
#pragma once

#include <cstdint>

#include "core/kernels/isa.h"

namespace sg::kernels {

inline constexpr std::int64_t kWinogradPositions = 16;

struct WinogradTiles {
  std::int64_t first, rows, columns, channels;
  std::int64_t plane,
      block;  // of transformed tiles: floats between positions, and between channel blocks
};

/// B^T d B of an image.
struct WinogradInput {
  WinogradTiles tiles;
  const float* x;                                // [h, w, channels] with row and pixel strides
  std::int64_t x_row, x_pixel, h, w, top, left;  // top, left: padding
  float* to;
};

/// A dY A^T of an output's gradient.
struct WinogradGrad {
  WinogradTiles tiles;
  const float* dy;  // [oh, ow, channels], or of half the size if pooled
  std::int64_t dy_row, dy_pixel, oh, ow;
  const float* mask;  // null, or (with dy's strides) the output of a fused relu
  const std::uint8_t*
      index;  // null, or dy is that of 2x2 max pooling: which output of the tile gets it, 4: none
  double* sums;  // null, or [channels] to which sums over the pixels are added
  float* to;
};

/// A^T m A, bias, relu and pooling of the products.
struct WinogradOutput {
  WinogradTiles tiles;
  const float* m;
  const float* bias;  // null or [channels]
  bool relu;
  float* y;
  std::int64_t y_row, y_pixel, oh, ow;
  std::uint8_t* index;  // null, or y and index are of half the size, as in ConvForward
};

/// B m B^T, summed where tiles overlap. Rows of tiles come in order; `carry` keeps what the next
/// one adds to, two rows of 2 columns + 2 pixels of all channels, zeros before the first.
struct WinogradInputGrad {
  WinogradTiles tiles;
  const float* m;
  float* dx;
  std::int64_t dx_row, dx_pixel, h, w, top, left;
  float* carry;
  bool last;  // the image's last row of tiles is among these
};

/// At positions [first, last): to [tile][lane] = sum over channels of from [tile][channel] filters
/// [channel][lane]. `to` may be where `from` of the position before lies.
struct WinogradProducts {
  std::int64_t first, last, tiles;
  const float* from;
  std::int64_t from_plane, from_block, channels;
  const float* filters;  // as WinogradTable::filters orders them
  std::int64_t lanes;
  float* to;
  std::int64_t to_plane, to_block;
};

/// At positions [first, last): sums [channel][lane] += sum over tiles of x [tile][channel] dy
/// [tile][lane].
struct WinogradSums {
  std::int64_t first, last, tiles;
  const float* x;
  std::int64_t x_plane, x_block, channels;
  const float* dy;
  std::int64_t dy_plane, dy_block, lanes;
  float* sums;  // in the order of the filters
};

/// Filters: (lane, channel) at from + lane * sl + channel * sc, nine values each.
struct WinogradFilters {
  std::int64_t sl, sc, lanes, channels;
};

struct WinogradTable {
  void (*input)(const WinogradInput&);
  void (*grad)(const WinogradGrad&);
  void (*output)(const WinogradOutput&);
  void (*input_grad)(const WinogradInputGrad&);
  void (*products)(const WinogradProducts&);
  void (*sums)(const WinogradSums&);
  /// G g G^T, ordered [position][lane group][channel][lane]; lanes [first, last) only, whole
  /// groups.
  void (*filters)(const WinogradFilters&, const float* from, std::int64_t first, std::int64_t last,
                  float* to);
  /// dg = G^T s G of sums in the same order; overwrites the lanes [first, last) of dw.
  void (*filters_grad)(const WinogradFilters&, const float* sums, std::int64_t first,
                       std::int64_t last, float* dw);
};
SG_ISA_TABLE(WinogradTable, winograd)

}  // namespace sg::kernels
