// What the .cu files of image ops (convolution, pooling, batch norm) offer to the rest of
// core/cuda. Images are dense: channels-last, or row-major where an argument says so.
#pragma once

#include <cstdint>

#include "core/cuda/launch.h"
#include "core/kernels/conv.h"
#include "core/kernels/pool_geometry.h"
#include "core/scalar.h"

namespace sg::cuda {

/// The type in which sums of `dtype` are kept: f32 for 16-bit values.
inline DType sums_dtype(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

// ---- conv.cu

/// A patch of group g is the `length` values [kh][kw][C / groups] under a filter, followed by zeros
/// up to `padded`. A row of patches has those of all groups, one after the other.
struct PatchRow {
  std::int64_t groups, length, padded;
  std::int64_t size() const { return groups * padded; }
};
PatchRow patch_row(const kernels::ConvGeometry& g);

/// rows[p] = the patches of output pixel first + p, for p < count. x has any strides.
void im2col(const Launch& on, DType dtype, const kernels::ConvGeometry& g,
            const kernels::ImageView<const void>& x, std::int64_t first, std::int64_t count,
            void* rows);
/// dx = for each of `images` images the sum over all patches that a value was part of. `rows` is of
/// sums_dtype, dx channels-last.
void col2im(const Launch& on, DType dtype, const kernels::ConvGeometry& g, std::int64_t images,
            const void* rows, void* dx);
/// filters [O][padded] = weight [O, C / groups, kh, kw] in the order of patches, and back, from
/// sums_dtype.
void pack_filters(const Launch& on, DType dtype, const kernels::ConvGeometry& g, const void* weight,
                  void* filters);
void unpack_filters(const Launch& on, DType dtype, const kernels::ConvGeometry& g,
                    const void* filters, void* weight);

// ---- conv_direct.cu: convolutions without patches. dy, y and dx are channels-last, x has any
// strides, weight is contiguous

/// Whether that is faster than a product of matrices. The sizes decide.
bool conv_direct_pays(const kernels::ConvGeometry& g);
void conv_direct(const Launch& on, DType dtype, const kernels::ConvGeometry& g,
                 const kernels::ImageView<const void>& x, const void* weight, const void* bias,
                 bool relu, void* y);
void conv_direct_input_grad(const Launch& on, DType dtype, const kernels::ConvGeometry& g,
                            const void* dy, const void* weight, void* dx);
/// `partial` has a double for each value of the weight and each of conv_direct_parts().
std::int64_t conv_direct_parts(const kernels::ConvGeometry& g);
void conv_direct_weight_grad(const Launch& on, DType dtype, const kernels::ConvGeometry& g,
                             const void* dy, const kernels::ImageView<const void>& x,
                             double* partial, void* weight_grad);

// ---- column_sums.h

/// How sums over the rows of an image's channels are cut: `parts` runs, each of `width` sums, a
/// multiple of the number of channels. It depends on the sizes alone.
struct ColumnParts {
  std::int64_t parts = 0, width = 0, channels = 0;
  /// Partial sums of a channel.
  std::int64_t per_channel() const { return parts * (width / channels); }
  std::int64_t size() const { return parts * width; }
};
/// Of `rows` rows of `channels` values; by planes (row-major): of rows / area images.
ColumnParts column_parts(std::int64_t rows, std::int64_t channels);

/// sums [channels] of x [rows, channels]; `partial` has column_parts().size() doubles.
void column_sums(const Launch& on, DType dtype, std::int64_t rows, std::int64_t channels,
                 const void* x, double* partial, void* sums);

// ---- pool.cu: by planes, g.n counts planes and g.c is 1

void max_pool(const Launch& on, DType dtype, DType index_dtype, const kernels::PoolGeometry& g,
              const void* x, void* y, void* index);
void max_pool_grad(const Launch& on, DType dtype, DType index_dtype, const kernels::PoolGeometry& g,
                   const void* dy, const void* index, void* dx);
void avg_pool(const Launch& on, DType dtype, const kernels::PoolGeometry& g, const void* x,
              void* y);
void avg_pool_grad(const Launch& on, DType dtype, const kernels::PoolGeometry& g, const void* dy,
                   void* dx);
/// Of whole planes, row-major.
void plane_means(const Launch& on, DType dtype, std::int64_t planes, std::int64_t area,
                 const void* x, void* y);

// ---- batch_norm.cu

/// A vector of a value for each channel, in any floating dtype.
struct ChannelVector {
  void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t stride = 1;
};

/// Values x [images, channels, area] row-major, or [images * area, channels] where `last`. mean and
/// invstd are of sums_dtype; weight and bias too, or null.
struct BatchNormLayout {
  std::int64_t images, channels, area;
  bool last;
  std::int64_t count() const { return images * area; }
};
struct BatchNormFactors {
  const void *mean, *invstd, *weight, *bias;
  bool relu;
};

/// Partial sums for the two calls below.
ColumnParts batch_norm_parts(const BatchNormLayout& l);

/// mean and 1 / sqrt(variance + eps) of every channel; moves the running statistics that are given.
/// `partial` has 2 * batch_norm_parts().size() doubles.
void batch_norm_statistics(const Launch& on, DType dtype, const BatchNormLayout& l, const void* x,
                           double* partial, double eps, void* mean, void* invstd, double momentum,
                           const ChannelVector& running_mean, const ChannelVector& running_var);
/// The same from given statistics.
void batch_norm_given(const Launch& on, DType dtype, std::int64_t channels, double eps,
                      const ChannelVector& running_mean, const ChannelVector& running_var,
                      void* mean, void* invstd);
void batch_norm_normalize(const Launch& on, DType dtype, const BatchNormLayout& l, const void* x,
                          const BatchNormFactors& factors, void* y);

/// Gradients of weight and bias (where given), and what the input's needs: slopes [2][channels] of
/// sums_dtype.
void batch_norm_sums(const Launch& on, DType dtype, const BatchNormLayout& l, const void* x,
                     const void* dy, const BatchNormFactors& factors, double* partial,
                     const ChannelVector& weight_grad, const ChannelVector& bias_grad,
                     void* slopes);
/// slopes may be null: the statistics did not depend on x.
void batch_norm_input_grad(const Launch& on, DType dtype, const BatchNormLayout& l, const void* x,
                           const void* dy, const BatchNormFactors& factors, const void* slopes,
                           void* dx);

}  // namespace sg::cuda
