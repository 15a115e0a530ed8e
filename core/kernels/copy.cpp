#include "core/kernels/copy.h"

#include <algorithm>
#include <cstring>

#include "core/parallel.h"

namespace sg::kernels {
namespace {

// Both tensors' dimensions, sorted so that the destination's smallest stride is innermost and
// neighbours that compose on both sides are merged.
struct Walk {
  int dims = 0;
  std::int64_t size[Dims::kCapacity], from[Dims::kCapacity], to[Dims::kCapacity];

  Walk(const Tensor& source, const Tensor& destination) {
    int order[Dims::kCapacity];
    int count = 0;
    const Shape& shape = destination.shape();
    for (int i = 0; i < shape.size(); ++i)
      if (shape[i] != 1) order[count++] = i;
    std::stable_sort(order, order + count, [&](int a, int b) {
      return destination.strides()[a] > destination.strides()[b];
    });
    for (int k = 0; k < count; ++k) {
      const int i = order[k];
      const std::int64_t f = source.strides()[i], t = destination.strides()[i];
      if (dims > 0 && from[dims - 1] == f * shape[i] && to[dims - 1] == t * shape[i]) {
        size[dims - 1] *= shape[i];
        from[dims - 1] = f;
        to[dims - 1] = t;
      } else {
        size[dims] = shape[i];
        from[dims] = f;
        to[dims++] = t;
      }
    }
    if (dims == 0) {
      size[0] = 1;
      from[0] = to[0] = 1;
      dims = 1;
    }
  }
};

// What one call copies: strides are in elements.
struct Block {
  std::int64_t rows, n;         // rows of n elements
  std::int64_t from_row, from;  // the source's strides
  std::int64_t to_row, to;
};

template <class S, class D>
void copy_block(const void* source, void* destination, const Block& b) {
  const S* s = static_cast<const S*>(source);
  D* d = static_cast<D*>(destination);
  for (std::int64_t r = 0; r < b.rows; ++r, s += b.from_row, d += b.to_row) {
    if constexpr (std::is_same_v<S, D>) {
      if (b.from == 1 && b.to == 1) {
        std::memcpy(d, s, static_cast<std::size_t>(b.n) * sizeof(S));
        continue;
      }
    }
    for (std::int64_t i = 0; i < b.n; ++i) d[i * b.to] = convert<D>(s[i * b.from]);
  }
}

using CopyBlock = decltype(&copy_block<float, float>);

CopyBlock copy_block_of(DType from, DType to) {
  CopyBlock found = nullptr;
  visit(from, [&](auto s) {
    visit(to, [&](auto d) {
      found = copy_block<typename decltype(s)::type, typename decltype(d)::type>;
    });
  });
  return found;
}

}  // namespace

void copy(const Tensor& source, const Tensor& destination) {
  if (destination.numel() == 0) return;
  const Walk walk(source, destination);
  const CopyBlock copy_block = copy_block_of(source.dtype(), destination.dtype());
  const auto s_size = static_cast<std::int64_t>(size_of(source.dtype()));
  const auto d_size = static_cast<std::int64_t>(size_of(destination.dtype()));
  const char* const s = static_cast<const char*>(source.raw_data());
  char* const d = static_cast<char*>(destination.raw_data());
  const int inner = walk.dims - 1, outer = inner - 1;
  const std::int64_t row = walk.size[inner];
  Block all{.rows = 1,
            .n = row,
            .from_row = 0,
            .from = walk.from[inner],
            .to_row = 0,
            .to = walk.to[inner]};
  if (walk.dims == 1) {
    parallel_for(row, 1 << 15, [&](std::int64_t begin, std::int64_t end) {
      Block part = all;
      part.n = end - begin;
      copy_block(s + begin * all.from * s_size, d + begin * all.to * d_size, part);
    });
    return;
  }
  all.from_row = walk.from[outer];
  all.to_row = walk.to[outer];
  std::int64_t rows = 1;
  for (int i = 0; i < inner; ++i) rows *= walk.size[i];
  const std::int64_t grain = std::max<std::int64_t>((1 << 15) / std::max<std::int64_t>(row, 1), 1);
  parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end) {
    std::int64_t index[Dims::kCapacity] = {};
    std::int64_t from = 0, to = 0, rest = begin;
    for (int i = outer; i >= 0; --i) {
      index[i] = rest % walk.size[i];
      rest /= walk.size[i];
      from += index[i] * walk.from[i];
      to += index[i] * walk.to[i];
    }
    Block block = all;
    for (std::int64_t r = begin; r < end; r += block.rows) {
      block.rows = std::min(walk.size[outer] - index[outer], end - r);
      copy_block(s + from * s_size, d + to * d_size, block);
      index[outer] += block.rows;
      from += block.rows * all.from_row;
      to += block.rows * all.to_row;
      for (int i = outer; i > 0 && index[i] == walk.size[i]; --i) {
        from += walk.from[i - 1] - walk.from[i] * walk.size[i];
        to += walk.to[i - 1] - walk.to[i] * walk.size[i];
        index[i] = 0;
        ++index[i - 1];
      }
    }
  });
}

void fill(const Tensor& destination, double value) {
  if (destination.numel() == 0) return;
  visit(destination.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const T element = convert<T>(value);
    if (destination.is_dense()) {
      T* data = destination.data<T>();
      parallel_for(destination.numel(), 1 << 15, [&](std::int64_t begin, std::int64_t end) {
        std::fill(data + begin, data + end, element);
      });
      return;
    }
    const Tensor one = Tensor::from(std::span<const T>(&element, 1), {1});
    copy(one.expand(destination.shape()), destination);
  });
}

}  // namespace sg::kernels
