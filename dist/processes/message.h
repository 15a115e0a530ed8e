// What a rank sends each peer of a collective first, in one piece: a header that names what it is,
// and the bytes themselves where they are few. In the byte order of the hosts: all ranks run one
// program.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "core/tensor.h"
#include "dist/comm/transport.h"

namespace sg::dist {

struct Header {
  static constexpr std::size_t kText = 32;
  std::uint64_t sequence, unseen;
  std::int64_t count, bytes;
  std::int32_t unit;
  std::uint8_t dtype;
  char op[kText], unit_name[UnitLabel::kName];
  char gap[24];  // bytes that follow begin where vectors may

  explicit Header(const Posting& p)
      : sequence(p.sequence),
        unseen(p.unseen),
        count(p.count),
        bytes(p.bytes),
        unit(p.unit.index),
        dtype(static_cast<std::uint8_t>(p.dtype)),
        op{},
        gap{} {
    std::strncpy(op, p.op, kText - 1);
    std::memcpy(unit_name, p.unit.name, UnitLabel::kName);
  }
  /// The posting that it speaks of; `op` lives as long as this. What came over the wire is taken
  /// for what it may be.
  Posting posting() {
    op[kText - 1] = unit_name[UnitLabel::kName - 1] = '\0';
    const bool known = dtype <= static_cast<std::uint8_t>(DType::u8);
    return {.op = op,
            .unit = {unit, unit_name},
            .dtype = known ? static_cast<DType>(dtype) : DType::u8,
            .count = count,
            .sequence = sequence,
            .unseen = unseen,
            .bytes = bytes};
  }
};
static_assert(sizeof(Header) == 128);

/// Room for a message to, or from, each of a rank's peers.
class Messages {
 public:
  /// Bytes that travel with the header, on every rank alike: what follows it takes two more trips,
  /// for the peer says first that there is room. Each collective that is not released yet, and the
  /// next, has room for messages of that size: at most a megabyte for all peers together, and
  /// 128 KB for one.
  static std::int64_t most_inline(int ranks) {
    return std::clamp<std::int64_t>((1 << 20) / std::max(ranks - 1, 1) / 64 * 64, 4096, 128 << 10);
  }

  Messages() = default;
  /// `bytes`: most that travels with a header here.
  Messages(int rank, int ranks, std::int64_t bytes)
      : rank_(rank), room_(static_cast<std::int64_t>(sizeof(Header)) + (bytes + 63) / 64 * 64) {
    const Scoped kind(current_rank().kind, Kind::buffers);
    bytes_ = Tensor::empty({room_ * (ranks - 1)}, DType::u8, kCpu);
  }
  bool defined() const { return bytes_.defined(); }
  char* of(int peer) const {
    return static_cast<char*>(bytes_.raw_data()) + (peer < rank_ ? peer : peer - 1) * room_;
  }
  Header& header(int peer) const { return *reinterpret_cast<Header*>(of(peer)); }
  char* data(int peer) const { return of(peer) + sizeof(Header); }
  std::size_t room() const { return static_cast<std::size_t>(room_); }

 private:
  int rank_ = 0;
  std::int64_t room_ = 0;
  Tensor bytes_;
};

}  // namespace sg::dist
