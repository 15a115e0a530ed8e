// Rows of a table by index, and back, on the GPU (embedding.cu, sort.cu).
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/cuda/launch.h"
#include "core/scalar.h"

namespace sg::cuda {

/// out[i] = row indices[i] of a table of rows of `row_bytes`; zeros, and a report to `found`, where
/// there is no such row.
void embedding(const Launch& on, std::int64_t count, const std::int64_t* indices, const void* table,
               std::int64_t rows, std::int64_t row_bytes, void* out, std::int64_t* found);

/// keys[i] = indices[i], or `rows` for the padding index and what is no row; places[i] = i.
void embedding_keys(const Launch& on, std::int64_t count, const std::int64_t* indices,
                    std::int64_t rows, std::int64_t padding_index, std::uint32_t* keys,
                    std::int32_t* places);

/// Stable, by the low `bits` bits of the keys.
std::size_t sort_scratch_bytes(const Launch& on, std::int64_t count, int bits);
void sort_by_key(const Launch& on, std::int64_t count, int bits, const std::uint32_t* keys,
                 const std::int32_t* places, std::uint32_t* sorted_keys,
                 std::int32_t* sorted_places, void* scratch, std::size_t scratch_bytes);

/// Rows of `dim` values that embedding_grad keeps the sums of pieces in, in the compute type.
std::int64_t embedding_pieces(std::int64_t count);
/// grad_weight[key] = sum of grad[place] over the places of each key, in their order; rows without
/// a place are left alone. Up to 1024 places are added one by one in the compute type; beyond, the
/// sums of 1024 are added in double.
void embedding_grad(const Launch& on, DType dtype, std::int64_t count,
                    const std::uint32_t* sorted_keys, const std::int32_t* sorted_places,
                    const void* grad, std::int64_t rows, std::int64_t dim, void* pieces,
                    void* grad_weight);

}  // namespace sg::cuda
