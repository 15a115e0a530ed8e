#include "core/kernels/blocks.h"

#include <algorithm>
#include <cstring>

#include "core/kernels/elementwise.h"
#include "core/parallel.h"

namespace sg::kernels {

void to_compute(DType dtype, const void* from, void* to, std::int64_t n) {
  if (dtype == DType::bf16)
    convert_kernels().bf16_to_float(static_cast<const std::uint16_t*>(from),
                                    static_cast<float*>(to), n);
  else if (dtype == DType::f16)
    convert_kernels().f16_to_float(static_cast<const std::uint16_t*>(from), static_cast<float*>(to),
                                   n);
  else
    std::memcpy(to, from, static_cast<std::size_t>(n) * size_of(dtype));
}

void from_compute(DType dtype, const void* from, void* to, std::int64_t n) {
  if (dtype == DType::bf16)
    convert_kernels().float_to_bf16(static_cast<const float*>(from),
                                    static_cast<std::uint16_t*>(to), n);
  else if (dtype == DType::f16)
    convert_kernels().float_to_f16(static_cast<const float*>(from), static_cast<std::uint16_t*>(to),
                                   n);
  else
    std::memcpy(to, from, static_cast<std::size_t>(n) * size_of(dtype));
}

std::size_t compute_size(DType dtype) { return is_half(dtype) ? sizeof(float) : size_of(dtype); }

namespace {

constexpr int kOperands = kMaxInputs + 1;  // the output is the first
constexpr int kCapacity = Dims::kCapacity;

struct Operand {
  char* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t item = 4;
  std::int64_t stride[kCapacity] = {};  // bytes, of the merged dimensions
  bool flat = false;                    // its elements follow each other in the order of the walk
  bool scalar = false;                  // one element for all
  bool repeats = false;                 // every row (of the innermost dimension) is the same
};

// Strides of the rows and within a row, in bytes; the result is contiguous.
template <class T>
void gather_typed(const char* from, std::int64_t outer, std::int64_t inner, std::int64_t rows,
                  std::int64_t n, char* to) {
  T* out = reinterpret_cast<T*>(to);
  for (std::int64_t r = 0; r < rows; ++r, from += outer, out += n) {
    if (inner == 0) {
      std::fill(out, out + n, *reinterpret_cast<const T*>(from));
    } else if (inner == sizeof(T)) {
      const T* in = reinterpret_cast<const T*>(from);
      for (std::int64_t i = 0; i < n; ++i) out[i] = in[i];
    } else {
      for (std::int64_t i = 0; i < n; ++i) out[i] = *reinterpret_cast<const T*>(from + i * inner);
    }
  }
}

void gather(const char* from, std::int64_t outer, std::int64_t inner, std::int64_t item,
            std::int64_t rows, std::int64_t n, char* to) {
  switch (item) {
    case 8:
      return gather_typed<std::uint64_t>(from, outer, inner, rows, n, to);
    case 4:
      return gather_typed<std::uint32_t>(from, outer, inner, rows, n, to);
    case 2:
      return gather_typed<std::uint16_t>(from, outer, inner, rows, n, to);
    default:
      return gather_typed<std::uint8_t>(from, outer, inner, rows, n, to);
  }
}

template <class T>
void scatter_typed(const char* from, char* to, std::int64_t stride, std::int64_t n) {
  const T* in = reinterpret_cast<const T*>(from);
  for (std::int64_t i = 0; i < n; ++i) *reinterpret_cast<T*>(to + i * stride) = in[i];
}

void scatter(const char* from, std::int64_t item, char* to, std::int64_t stride, std::int64_t n) {
  if (stride == item) {
    std::memcpy(to, from, static_cast<std::size_t>(n * item));
    return;
  }
  switch (item) {
    case 8:
      return scatter_typed<std::uint64_t>(from, to, stride, n);
    case 4:
      return scatter_typed<std::uint32_t>(from, to, stride, n);
    case 2:
      return scatter_typed<std::uint16_t>(from, to, stride, n);
    default:
      return scatter_typed<std::uint8_t>(from, to, stride, n);
  }
}

// The output's dimensions by descending stride, neighbours merged where they compose in every
// operand.
struct Walk {
  int count = 0;  // operands
  Operand operand[kOperands];
  int dims = 0;
  std::int64_t size[kCapacity];
  std::int64_t rows = 1;   // product of all sizes but the innermost
  std::int64_t inner = 1;  // the innermost size

  Walk(const Tensor& output, std::initializer_list<const Tensor*> inputs) {
    add(output);
    for (const Tensor* input : inputs) add(*input);
    const Shape& shape = output.shape();
    int order[kCapacity], used = 0;
    for (int i = 0; i < shape.size(); ++i)
      if (shape[i] != 1) order[used++] = i;
    std::stable_sort(order, order + used,
                     [&](int a, int b) { return output.strides()[a] > output.strides()[b]; });
    const Tensor* tensors[kOperands] = {&output};
    std::copy(inputs.begin(), inputs.end(), tensors + 1);
    for (int k = 0; k < used; ++k) append(tensors, order[k], shape);
    if (dims == 0) {
      size[0] = 1;
      dims = 1;
    }
    inner = size[dims - 1];
    for (int d = 0; d + 1 < dims; ++d) rows *= size[d];
    for (int o = 0; o < count; ++o) set_flags(operand[o]);
  }

 private:
  void add(const Tensor& tensor) {
    Operand& o = operand[count++];
    if (!tensor.defined()) return;
    o.data = static_cast<char*>(tensor.raw_data());
    o.dtype = tensor.dtype();
    o.item = static_cast<std::int64_t>(size_of(o.dtype));
  }

  // Stride of output dimension `dim` in a tensor that broadcasts to the output's shape.
  static std::int64_t stride_of(const Tensor& tensor, int dim, int rank) {
    const int own = dim - (rank - tensor.dim_count());
    return own < 0 || tensor.shape()[own] == 1 ? 0 : tensor.strides()[own];
  }

  void append(const Tensor* const* tensors, int dim, const Shape& shape) {
    std::int64_t next[kOperands];
    bool composes = dims > 0;
    for (int o = 0; o < count; ++o) {
      next[o] = operand[o].data == nullptr
                    ? 0
                    : stride_of(*tensors[o], dim, shape.size()) * operand[o].item;
      if (dims > 0) composes = composes && operand[o].stride[dims - 1] == next[o] * shape[dim];
    }
    if (!composes)
      size[dims++] = shape[dim];
    else
      size[dims - 1] *= shape[dim];
    for (int o = 0; o < count; ++o) operand[o].stride[dims - 1] = next[o];
  }

  void set_flags(Operand& o) const {
    o.flat = o.scalar = o.repeats = true;
    std::int64_t expected = o.item;
    for (int d = dims - 1; d >= 0; --d) {
      if (o.stride[d] != 0 && size[d] != 1) (d == dims - 1 ? o.scalar : o.repeats) = false;
      if (o.stride[d] != expected && size[d] != 1) o.flat = false;
      expected *= size[d];
    }
    o.scalar = o.scalar && o.repeats;
  }
};

// Where a row (an index of all dimensions but the innermost) starts in every operand.
struct RowIndex {
  std::int64_t index[kCapacity] = {};
  std::int64_t offset[kOperands] = {};

  RowIndex(const Walk& walk, std::int64_t row) {
    for (int d = walk.dims - 2; d >= 0; --d) {
      index[d] = row % walk.size[d];
      row /= walk.size[d];
      for (int o = 0; o < walk.count; ++o) offset[o] += index[d] * walk.operand[o].stride[d];
    }
  }
  void advance(const Walk& walk) {
    for (int d = walk.dims - 2; d >= 0; --d) {
      for (int o = 0; o < walk.count; ++o) offset[o] += walk.operand[o].stride[d];
      if (++index[d] < walk.size[d]) return;
      for (int o = 0; o < walk.count; ++o) offset[o] -= walk.operand[o].stride[d] * walk.size[d];
      index[d] = 0;
    }
  }
};

// Buffers of one thread. A 16-bit operand is gathered as it is into `raw` and cast from there.
struct Buffers {
  alignas(64) char values[kOperands][kBlock * 8];
  alignas(64) char raw[kBlock * 2];
  bool filled[kOperands] = {};  // the buffer holds what all blocks have

  // The values of input o for a block of `n` elements, gathered by `fill(char* to)` unless they can
  // be used in place. `same`: no block needs other values than the first one, which is the longest.
  template <class F>
  const void* load(const Operand& o, int which, const char* place, bool direct, bool same,
                   std::int64_t n, const F& fill) {
    if (o.data == nullptr) return nullptr;
    const bool half = is_half(o.dtype);
    if (direct && !half) return place;
    if (same && filled[which]) return values[which];
    filled[which] = same;
    char* const to = half ? raw : values[which];
    if (!direct) fill(to);
    if (half) to_compute(o.dtype, direct ? place : raw, values[which], n);
    return values[which];
  }
};

// Long rows: blocks lie within a row.
void run_rows(const Walk& walk, const BlockLoop& loop, std::int64_t begin, std::int64_t end) {
  Buffers buffers;
  const std::int64_t chunks = (walk.inner + kBlock - 1) / kBlock;
  const int last = walk.dims - 1;
  RowIndex row(walk, begin / chunks);
  for (std::int64_t unit = begin; unit < end; ++unit) {
    const std::int64_t chunk = unit % chunks, start = chunk * kBlock;
    const std::int64_t n = std::min(kBlock, walk.inner - start);
    const void* inputs[kMaxInputs] = {};
    for (int i = 1; i < walk.count; ++i) {
      const Operand& o = walk.operand[i];
      const char* place = o.data + row.offset[i] + start * o.stride[last];
      // The first block of a thread may be a short last one: scalars always fill the buffer.
      const bool direct = o.stride[last] == o.item, same = o.scalar && !direct;
      const std::int64_t filled = same ? kBlock : n;
      inputs[i - 1] = buffers.load(o, i, place, direct, same, filled, [&](char* to) {
        gather(place, 0, o.stride[last], o.item, 1, filled, to);
      });
    }
    const Operand& out = walk.operand[0];
    char* place = out.data + row.offset[0] + start * out.stride[last];
    const bool direct = out.stride[last] == out.item || n == 1;
    if (direct && !is_half(out.dtype)) {
      loop(inputs, place, n);
    } else {
      loop(inputs, buffers.values[0], n);
      const char* from = buffers.values[0];
      if (is_half(out.dtype)) {
        from_compute(out.dtype, from, direct ? place : buffers.raw, n);
        from = buffers.raw;
      }
      if (!direct) scatter(from, out.item, place, out.stride[last], n);
    }
    if (chunk + 1 == chunks) row.advance(walk);
  }
}

// Short rows: a block is as many whole rows as fit.
void run_groups(const Walk& walk, const BlockLoop& loop, std::int64_t begin, std::int64_t end) {
  Buffers buffers;
  const std::int64_t group = std::max<std::int64_t>(kBlock / walk.inner, 1);
  const int last = walk.dims - 1;
  RowIndex row(walk, begin * group);
  for (std::int64_t unit = begin; unit < end; ++unit) {
    const std::int64_t first = unit * group, count = std::min(group, walk.rows - first);
    const std::int64_t n = count * walk.inner;
    const RowIndex start = row;
    for (std::int64_t r = 0; r < count; ++r) row.advance(walk);
    const void* inputs[kMaxInputs] = {};
    for (int i = 1; i < walk.count; ++i) {
      const Operand& o = walk.operand[i];
      // A flat operand is read where it is: no further than the rows that there are.
      const bool same = o.repeats && !o.flat;
      const std::int64_t rows = same ? group : count;
      inputs[i - 1] = buffers.load(
          o, i, o.data + start.offset[i], o.flat, same, rows * walk.inner, [&](char* to) {
            if (same || walk.dims <= 2)
              return gather(o.data + start.offset[i], last > 0 ? o.stride[last - 1] : 0,
                            o.stride[last], o.item, rows, walk.inner, to);
            RowIndex at = start;
            for (std::int64_t r = 0; r < count; ++r, at.advance(walk))
              gather(o.data + at.offset[i], 0, o.stride[last], o.item, 1, walk.inner,
                     to + r * walk.inner * o.item);
          });
    }
    const Operand& out = walk.operand[0];
    char* place = out.data + start.offset[0];
    if (out.flat && !is_half(out.dtype)) {
      loop(inputs, place, n);
      continue;
    }
    loop(inputs, buffers.values[0], n);
    const char* from = buffers.values[0];
    if (is_half(out.dtype)) {
      from_compute(out.dtype, from, out.flat ? place : buffers.raw, n);
      from = buffers.raw;
    }
    if (out.flat) continue;
    RowIndex at = start;
    for (std::int64_t r = 0; r < count; ++r, at.advance(walk))
      scatter(from + r * walk.inner * out.item, out.item, out.data + at.offset[0], out.stride[last],
              walk.inner);
  }
}

// Everything contiguous in the same order and nothing to cast: the loop runs over the tensors' own
// memory.
bool all_direct(const Walk& walk) {
  for (int o = 0; o < walk.count; ++o) {
    const Operand& operand = walk.operand[o];
    if (operand.data != nullptr && (!operand.flat || is_half(operand.dtype))) return false;
  }
  return true;
}

}  // namespace

void for_blocks(const Tensor& output, std::initializer_list<const Tensor*> inputs,
                const BlockLoop& loop, int cost) {
  const std::int64_t n = output.numel();
  if (n == 0) return;
  const Walk walk(output, inputs);
  const std::int64_t grain = std::max<std::int64_t>((1 << 14) / cost, kBlock);
  if (all_direct(walk)) {
    parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
      const void* places[kMaxInputs] = {};
      for (int i = 1; i < walk.count; ++i) {
        const Operand& o = walk.operand[i];
        places[i - 1] = o.data == nullptr ? nullptr : o.data + begin * o.item;
      }
      loop(places, walk.operand[0].data + begin * walk.operand[0].item, end - begin);
    });
    return;
  }
  if (walk.inner >= kBlock / 8) {
    const std::int64_t chunks = (walk.inner + kBlock - 1) / kBlock;
    parallel_for(walk.rows * chunks,
                 std::max<std::int64_t>(grain / std::min(walk.inner, kBlock), 1),
                 [&](std::int64_t begin, std::int64_t end) { run_rows(walk, loop, begin, end); });
    return;
  }
  const std::int64_t group = std::max<std::int64_t>(kBlock / walk.inner, 1);
  parallel_for((walk.rows + group - 1) / group, std::max<std::int64_t>(grain / kBlock, 1),
               [&](std::int64_t begin, std::int64_t end) { run_groups(walk, loop, begin, end); });
}

}  // namespace sg::kernels
