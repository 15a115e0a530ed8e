// Embedding on the GPU. Its gradient needs no atomic additions, whose order is chance: the places
// where each row was used are sorted by row, in the order of the indices.
#include "core/cuda/divide.h"
#include "core/cuda/found.h"
#include "core/cuda/kernels_embedding.h"
#include "core/cuda/map.h"
#include "core/cuda/row.h"

namespace sg::cuda {
namespace {

template <class Chunk>
struct Gather {
  const std::int64_t* indices;
  const Chunk* table;
  Chunk* out;
  std::int64_t rows;
  Divider chunks;  // of a row
  std::int64_t* found;

  SG_HD void operator()(std::int64_t i) const {
    std::int64_t place = i;
    const std::int64_t chunk = chunks.split(place), index = indices[place];
    if (index >= 0 && index < rows) {
      out[i] = table[index * chunks.divisor() + chunk];
    } else {
      out[i] = Chunk{};
      if (chunk == 0) report(found, kIndexOutside, index, place, rows);
    }
  }
};

struct Keys {
  const std::int64_t* indices;
  std::int64_t rows, padding_index;
  std::uint32_t* keys;
  std::int32_t* places;

  SG_HD void operator()(std::int64_t i) const {
    const std::int64_t index = indices[i];
    const bool used = index >= 0 && index < rows && index != padding_index;
    keys[i] = static_cast<std::uint32_t>(used ? index : rows);
    places[i] = static_cast<std::int32_t>(i);
  }
};

// The sorted places of a key are cut into pieces of kPiece, the first of them at the key's first
// place. A piece that another one of its key follows has kPiece places, so at most one such piece
// starts in any window of kPiece places, and its sum is kept under the window's number.
constexpr std::int64_t kPiece = 1024;

template <class T, int kWide>
struct Places {
  using C = compute_t<T>;
  static constexpr int kUnroll = 8;
  const std::uint32_t* keys;
  const std::int32_t* places;
  const T* grad;
  std::int64_t count, rows, dim;
  Divider packs;  // of columns

  struct alignas(kWide * sizeof(T)) Values {
    T values[kWide];
  };

  SG_HD bool followed(std::int64_t start) const {
    return start + kPiece < count && keys[start + kPiece] == keys[start];
  }
  // The first place, up to `known`, whose key is that of `known`.
  SG_HD std::int64_t first_of(std::int64_t known) const {
    std::int64_t low = 0, high = known;
    while (low < high) {
      const std::int64_t middle = (low + high) / 2;
      if (keys[middle] < keys[known])
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  }
  // Adds places start, start + 1, ... while their key is the same, at most kPiece, one by one.
  SG_HD void sum(std::int64_t start, std::int64_t column, C* total) const {
    for (int k = 0; k < kWide; ++k) total[k] = C(0);
    const std::uint32_t key = keys[start];
    const std::int64_t most = count - start < kPiece ? count : start + kPiece;
    std::int64_t at = start;
    for (; at + kUnroll <= most && keys[at + kUnroll - 1] == key; at += kUnroll) {
      Values v[kUnroll];
      for (int j = 0; j < kUnroll; ++j) v[j] = load(at + j, column);
      for (int j = 0; j < kUnroll; ++j)
        for (int k = 0; k < kWide; ++k) total[k] += static_cast<C>(v[j].values[k]);
    }
    for (; at < most && keys[at] == key; ++at) {
      const Values v = load(at, column);
      for (int k = 0; k < kWide; ++k) total[k] += static_cast<C>(v.values[k]);
    }
  }

 private:
  SG_HD Values load(std::int64_t at, std::int64_t column) const {
    return *reinterpret_cast<const Values*>(grad + places[at] * dim + column);
  }
};

// Unit (window, pack of columns).
template <class T, int kWide>
struct FollowedPieces {
  using C = compute_t<T>;
  Places<T, kWide> p;
  C* pieces;

  SG_HD void operator()(std::int64_t unit) const {
    std::int64_t window = unit;
    const std::int64_t column = p.packs.split(window) * kWide;
    const std::int64_t begin = window * kPiece, next = begin + kPiece;
    // A piece that starts here and is followed reaches beyond the window.
    if (next >= p.count || p.keys[next] >= p.rows) return;
    const std::int64_t first = p.first_of(next);
    if (first >= next) return;
    const std::int64_t start =
        first >= begin ? first : first + (begin - first + kPiece - 1) / kPiece * kPiece;
    if (!p.followed(start)) return;
    C total[kWide];
    p.sum(start, column, total);
    for (int k = 0; k < kWide; ++k) pieces[window * p.dim + column + k] = total[k];
  }
};

// Unit (place, pack of columns): works where the place is a key's first.
template <class T, int kWide>
struct RowSums {
  using C = compute_t<T>;
  Places<T, kWide> p;
  const C* pieces;
  T* out;

  SG_HD void operator()(std::int64_t unit) const {
    std::int64_t at = unit;
    const std::int64_t column = p.packs.split(at) * kWide;
    const std::uint32_t key = p.keys[at];
    if (key >= p.rows || (at > 0 && p.keys[at - 1] == key)) return;
    double total[kWide] = {};
    for (; p.followed(at); at += kPiece)
      for (int k = 0; k < kWide; ++k)
        total[k] += static_cast<double>(pieces[at / kPiece * p.dim + column + k]);
    C last[kWide];
    p.sum(at, column, last);
    typename Places<T, kWide>::Values v;
    for (int k = 0; k < kWide; ++k)
      v.values[k] = static_cast<T>(static_cast<C>(total[k] + static_cast<double>(last[k])));
    *reinterpret_cast<typename Places<T, kWide>::Values*>(out + key * p.dim + column) = v;
  }
};

}  // namespace

void embedding(const Launch& on, std::int64_t count, const std::int64_t* indices, const void* table,
               std::int64_t rows, std::int64_t row_bytes, void* out, std::int64_t* found) {
  const auto bits = static_cast<std::uintptr_t>(row_bytes) |
                    reinterpret_cast<std::uintptr_t>(table) | reinterpret_cast<std::uintptr_t>(out);
  if (row_bytes == 0) return;
  const auto run = [&]<class Chunk>(Type<Chunk>) {
    const std::int64_t chunks = row_bytes / static_cast<std::int64_t>(sizeof(Chunk));
    for_each(on, count * chunks,
             Gather<Chunk>{indices, static_cast<const Chunk*>(table), static_cast<Chunk*>(out),
                           rows, Divider(chunks), found});
  };
  if (bits % 16 == 0)
    run(Type<Pack<std::uint32_t>>{});
  else if (bits % 4 == 0)
    run(Type<std::uint32_t>{});
  else
    run(Type<std::uint8_t>{});
}

void embedding_keys(const Launch& on, std::int64_t count, const std::int64_t* indices,
                    std::int64_t rows, std::int64_t padding_index, std::uint32_t* keys,
                    std::int32_t* places) {
  for_each(on, count, Keys{indices, rows, padding_index, keys, places});
}

std::int64_t embedding_pieces(std::int64_t count) { return count > 0 ? (count - 1) / kPiece : 0; }

void embedding_grad(const Launch& on, DType dtype, std::int64_t count,
                    const std::uint32_t* sorted_keys, const std::int32_t* sorted_places,
                    const void* grad, std::int64_t rows, std::int64_t dim, void* pieces,
                    void* grad_weight) {
  visit_floating(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    const auto run = [&]<int kWide>() {
      const std::int64_t packs = dim / kWide;
      const Places<T, kWide> p{sorted_keys, sorted_places, static_cast<const T*>(grad), count, rows,
                               dim,         Divider(packs)};
      for_each(on, embedding_pieces(count) * packs,
               FollowedPieces<T, kWide>{p, static_cast<C*>(pieces)});
      for_each(on, count * packs,
               RowSums<T, kWide>{p, static_cast<const C*>(pieces), static_cast<T*>(grad_weight)});
    };
    constexpr int kCount = Pack<T>::kCount;
    const auto bits =
        reinterpret_cast<std::uintptr_t>(grad) | reinterpret_cast<std::uintptr_t>(grad_weight);
    if (dim % kCount == 0 && bits % 16 == 0)
      run.template operator()<kCount>();
    else
      run.template operator()<1>();
  });
}

}  // namespace sg::cuda
