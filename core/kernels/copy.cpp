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

template <class S, class D>
void copy_row(const S* source, std::int64_t from, D* destination, std::int64_t to, std::int64_t n) {
  if constexpr (std::is_same_v<S, D>) {
    if (from == 1 && to == 1) {
      std::memcpy(destination, source, static_cast<std::size_t>(n) * sizeof(S));
      return;
    }
  }
  for (std::int64_t i = 0; i < n; ++i)
    destination[i * to] =
        static_cast<D>(static_cast<compute_t<D>>(static_cast<compute_t<S>>(source[i * from])));
}

template <class S, class D>
void copy_typed(const Tensor& source, const Tensor& destination) {
  const Walk walk(source, destination);
  const S* s = source.data<S>();
  D* d = destination.data<D>();
  const int inner = walk.dims - 1;
  const std::int64_t row = walk.size[inner];
  if (walk.dims == 1) {
    parallel_for(row, 1 << 15, [&](std::int64_t begin, std::int64_t end) {
      copy_row(s + begin * walk.from[0], walk.from[0], d + begin * walk.to[0], walk.to[0],
               end - begin);
    });
    return;
  }
  std::int64_t rows = 1;
  for (int i = 0; i < inner; ++i) rows *= walk.size[i];
  const std::int64_t grain = std::max<std::int64_t>((1 << 15) / std::max<std::int64_t>(row, 1), 1);
  parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end) {
    std::int64_t index[Dims::kCapacity] = {};
    std::int64_t from = 0, to = 0, rest = begin;
    for (int i = inner - 1; i >= 0; --i) {
      index[i] = rest % walk.size[i];
      rest /= walk.size[i];
      from += index[i] * walk.from[i];
      to += index[i] * walk.to[i];
    }
    for (std::int64_t r = begin; r < end; ++r) {
      copy_row(s + from, walk.from[inner], d + to, walk.to[inner], row);
      for (int i = inner - 1; i >= 0; --i) {
        from += walk.from[i];
        to += walk.to[i];
        if (++index[i] < walk.size[i]) break;
        from -= walk.from[i] * walk.size[i];
        to -= walk.to[i] * walk.size[i];
        index[i] = 0;
      }
    }
  });
}

}  // namespace

void copy(const Tensor& source, const Tensor& destination) {
  if (destination.numel() == 0) return;
  visit(source.dtype(), [&](auto from) {
    visit(destination.dtype(), [&](auto to) {
      copy_typed<typename decltype(from)::type, typename decltype(to)::type>(source, destination);
    });
  });
}

void fill(const Tensor& destination, double value) {
  if (destination.numel() == 0) return;
  visit(destination.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const T element = static_cast<T>(static_cast<compute_t<T>>(value));
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
