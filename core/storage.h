// Bytes with an owner: what a tensor is a view of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "core/check.h"
#include "core/memory.h"

namespace sg {

class Source;  // autograd/source.h: produces a value again; core only carries the link

/// A block of bytes on a device, booked in the ledger (and account) of the rank that made it from
/// construction to destruction.
class Storage {
 public:
  /// Uninitialised bytes in the current rank's memory (none on `meta`, but booked).
  static std::shared_ptr<Storage> allocate(std::size_t bytes, Device device, Kind kind);
  /// Pinned main memory, which a GPU copies from while nobody waits (cuda::upload in
  /// core/cuda/lanes.h). Errors: no GPU.
  static std::shared_ptr<Storage> allocate_pinned(std::size_t bytes, Kind kind);
  /// Memory of somebody else, which `owner` keeps alive; not booked.
  static std::shared_ptr<Storage> wrap(void* data, std::size_t bytes, std::shared_ptr<void> owner);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  Device device() const { return device_; }
  Kind kind() const { return kind_; }
  /// Where it is booked: main memory is the host's tier for a rank that works on a GPU.
  Tier tier() const { return tier_; }
  bool pinned() const { return pinned_; }
  /// Books the bytes under another kind from now on.
  void set_kind(Kind kind);

  /// Counts changes in place: a value saved for backward must still have the version it was saved
  /// at.
  std::uint64_t version() const { return version_; }
  /// An error for a gathered value, which is read-only: the change would be lost with it.
  void bump_version() {
    SG_CHECK(!has_source_,
             "[storage] a gathered value cannot be changed in place: it is a copy that is dropped "
             "after use; set "
             "parameters through their engine (load_parameter)");
    ++version_;
  }

  /// Storages produced by a Source (a gathered unit) know it: saving a view saves how to produce it
  /// again, never bytes.
  void set_source(std::weak_ptr<Source> source) {
    source_ = std::move(source);
    has_source_ = true;
  }
  std::shared_ptr<Source> source() const { return has_source_ ? source_.lock() : nullptr; }
  bool has_source() const { return has_source_; }

  /// What made it, for error texts ("relu"); a string literal.
  const char* label = "tensor";
  /// Of a parameter or a unit of them, for error texts ("parameter conv1.weight"); else empty.
  std::string name;

 private:
  Storage() = default;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  Device device_;
  Kind kind_ = Kind::activations;
  Tier tier_ = Tier::device;
  bool pinned_ = false;
  bool has_source_ = false;
  std::uint64_t version_ = 0;
  static std::shared_ptr<Storage> make_booked(std::size_t bytes, Device device, Kind kind,
                                              Tier tier);
  void book(Kind kind, std::int64_t bytes);
  std::shared_ptr<Memory> memory_;
  std::shared_ptr<Ledger> account_;
  std::shared_ptr<Rise> rise_;  // null but for those made while the rank's bookings were recorded
  std::shared_ptr<void> owner_;
  std::weak_ptr<Source> source_;
};

}  // namespace sg
