#include "dist/arrows.h"

#include <algorithm>
#include <vector>

#include "core/kernels/fold.h"
#include "core/parallel.h"

namespace sg::dist {
namespace {

constexpr std::int64_t kGrain = 1 << 15;  // elements worth a thread

// out[i] = sources[0][i] + sources[1][i] + ..., of n elements; out may be one of the sources.
template <class T>
void sum_in_order(void* out, const std::vector<const void*>& sources, std::int64_t n) {
  const kernels::FoldLoops<T>& loops = kernels::fold_kernels().of<T>();
  parallel_for(n, kGrain, [&](std::int64_t begin, std::int64_t end) {
    std::vector<const T*> from;
    for (const void* source : sources) from.push_back(static_cast<const T*>(source) + begin);
    loops.sum(static_cast<T*>(out) + begin, from.data(), std::ssize(from), end - begin);
  });
}

}  // namespace

Tensor shard_of(const Tensor& full, int rank, int ranks) {
  const std::int64_t count = full.numel() / ranks;
  return full.slice(0, rank * count, count);
}

Ready<Tensor> start_all_gather(Comm& comm, const UnitLabel& unit, const Tensor& shard,
                               const Tensor& full) {
  Posting posting{.op = "all_gather", .unit = unit, .dtype = shard.dtype(), .count = shard.numel()};
  posting.data = static_cast<const char*>(shard.raw_data());
  posting.bytes = shard.bytes();
  return {full, comm.start(posting, shard.device(), shard.storage(), "all_gather",
                           (comm.size() - 1) * posting.bytes,
                           [&comm, full](Operation& op) { comm.gather(op, full.raw_data()); })};
}

Ready<Tensor> start_reduce_scatter(Comm& comm, const UnitLabel& unit, const Tensor& partial,
                                   const Tensor& shard, bool fold) {
  Posting posting{
      .op = "reduce_scatter", .unit = unit, .dtype = shard.dtype(), .count = shard.numel()};
  posting.data = static_cast<const char*>(partial.raw_data());
  posting.stride = posting.bytes = shard.bytes();
  const auto reduce = [&comm, shard, fold](Operation& operation) {
    SG_CHECK(shard.dtype() == DType::f32 || shard.dtype() == DType::f64,
             "[reduce_scatter] sums are kept in f32 or f64, got {}", name_of(shard.dtype()));
    // Each element is summed as ever, whatever the pieces are.
    const std::int64_t piece = comm.piece(operation), bytes = shard.bytes();
    std::int64_t begin = 0;
    do {
      char* const out = static_cast<char*>(shard.raw_data()) + begin;
      const std::int64_t n =
          std::min(piece, bytes - begin) / static_cast<std::int64_t>(size_of(shard.dtype()));
      std::vector<const void*> sources = comm.terms(operation, begin, fold ? nullptr : out);
      if (fold) sources.insert(sources.begin(), out);
      if (sources.size() == 1 && sources[0] == out) continue;  // it is the sum already
      if (SG_CUDA && operation.context() != nullptr)
        cuda::fold(*operation.context(), cuda::Lane::communication, shard.dtype(), out, sources, n);
      else if (shard.dtype() == DType::f32)
        sum_in_order<float>(out, sources, n);
      else
        sum_in_order<double>(out, sources, n);
    } while ((begin += piece) < bytes);
  };
  return {shard, comm.start(posting, partial.device(), partial.storage(), "reduce_scatter",
                            (comm.size() - 1) * posting.bytes, reduce)};
}

std::vector<std::uint64_t> exchange(Comm& comm, std::string_view name,
                                    std::span<const std::uint64_t> mine) {
  std::vector<std::uint64_t> all(mine.size() * static_cast<std::size_t>(comm.size()));
  // A copy that outlives this call: peers may read it later than this rank has read theirs.
  const auto posted = std::make_shared<std::vector<std::uint64_t>>(mine.begin(), mine.end());
  Posting posting{
      .op = "exchange", .dtype = DType::i64, .count = static_cast<std::int64_t>(mine.size())};
  posting.data = reinterpret_cast<const char*>(posted->data());
  posting.bytes = static_cast<std::int64_t>(mine.size_bytes());
  const auto operation = comm.start(posting, kCpu, posted, name, (comm.size() - 1) * posting.bytes,
                                    [&](Operation& op) { comm.gather(op, all.data()); });
  operation->wait();
  return all;
}

}  // namespace sg::dist
