// Sums over the rows of a matrix, column by column, in two stages and without atomics: threads sum
// strided runs of values, then a team a column adds the runs up. Included by .cu files.
#pragma once

#include "core/cuda/divide.h"
#include "core/cuda/kernels_image.h"

namespace sg::cuda {

/// Terms has kSums, a type C to compute in, channel(c) -> what all terms of a channel share, and
/// add(channel, i, sums), which adds the terms of value i to sums[kSums].
template <class Terms>
struct PartialSums {
  using C = typename Terms::C;
  Terms terms;
  Divider width, channels;
  std::int64_t size, part;  // values in all, and of a part
  double* partial;          // [kSums][parts][width]
  std::int64_t between;     // the sums

  SG_HD void operator()(std::int64_t i) const {
    double* const to = partial + i;
    std::int64_t t = width.split(i), rest = t;
    const auto channel = terms.channel(channels.split(rest));
    // Short sums in C, those added up in double: precise, and most additions are cheap ones.
    constexpr int kShort = 32;
    double total[Terms::kSums] = {};
    const std::int64_t end = (i + 1) * part < size ? (i + 1) * part : size;
    std::int64_t at = i * part + t;
    while (at < end) {
      C sums[Terms::kSums] = {};
      for (int k = 0; k < kShort && at < end; ++k, at += width.divisor())
        terms.add(channel, at, sums);
      for (int s = 0; s < Terms::kSums; ++s) total[s] = total[s] + static_cast<double>(sums[s]);
    }
    for (int s = 0; s < Terms::kSums; ++s) to[s * between] = total[s];
  }
};

/// The second stage, for one column.
struct FoldPartials {
  ColumnParts parts;
  const double* partial;
  FoldPartials(const ColumnParts& parts_, const double* partial_)
      : parts(parts_), partial(partial_) {}
  template <class Team>
  SG_HD double sum(const Team& team, int which, std::int64_t channel) const {
    const double* const from = partial + which * (parts.parts * parts.width) + channel;
    const std::int64_t step = parts.channels;
    return team.template sum<double>(parts.parts * (parts.width / parts.channels),
                                     [&](std::int64_t i) { return from[i * step]; });
  }
};

/// partial[sum][part][column] of x [rows, parts.channels].
template <class Terms>
void partial_sums(const Launch& on, const ColumnParts& parts, std::int64_t rows, const Terms& terms,
                  double* partial) {
  const std::int64_t size = rows * parts.channels;
  const std::int64_t lines = (size + parts.width - 1) / parts.width;  // of `width` values
  const std::int64_t part = (lines + parts.parts - 1) / parts.parts * parts.width;
  for_each(on, parts.size(),
           PartialSums<Terms>{terms, Divider(parts.width), Divider(parts.channels), size, part,
                              partial, parts.size()});
}

}  // namespace sg::cuda
