#pragma once

#include <algorithm>

#include "autograd/ops.h"
#include "nn/module.h"

namespace sg::nn {

/// indices (i64, any shape) -> indices.shape + [dim]; weight [count, dim], N(0, 1). The row
/// padding_index (-1: none) is zeros and gets no gradient.
class Embedding : public Module {
 public:
  Embedding(std::int64_t count, std::int64_t dim, std::int64_t padding_index = -1)
      : padding_index(padding_index) {
    SG_CHECK(count >= 0 && dim >= 0, "[Embedding] sizes must not be negative, got [{}, {}]", count,
             dim);
    SG_CHECK(padding_index >= -1 && padding_index < count,
             "[Embedding] padding_index {} is outside [0, {})", padding_index, count);
    weight = parameter("weight", {count, dim}, padding_index < 0 ? normal() : with_zero_row(dim));
  }
  Var forward(const Var& indices) override {
    return embedding(indices.value(), weight, padding_index);
  }

  Parameter weight;
  const std::int64_t padding_index;

 private:
  Init with_zero_row(std::int64_t dim) const {
    return [n = normal(), first = padding_index * dim, last = (padding_index + 1) * dim](
               const FillContext& context, std::int64_t begin, std::span<double> out) {
      n(context, begin, out);
      const std::int64_t end = begin + std::ssize(out);
      for (std::int64_t i = std::max(first, begin); i < std::min(last, end); ++i)
        out[static_cast<std::size_t>(i - begin)] = 0;
    };
  }
};

}  // namespace sg::nn
