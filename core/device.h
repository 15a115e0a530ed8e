// Where bytes live: the device that computes on them, and the tier that holds them.
#pragma once

#include <cstdint>
#include <string_view>

namespace sg {

/// `meta` has shapes, strides and ledger entries, but no bytes: ops on it only infer shapes.
enum class DeviceType : std::uint8_t { cpu, meta };

struct Device {
  DeviceType type = DeviceType::cpu;
  std::int8_t index = 0;
  bool operator==(const Device&) const = default;
  bool is_meta() const { return type == DeviceType::meta; }
};

inline constexpr Device kCpu{DeviceType::cpu, 0};
inline constexpr Device kMeta{DeviceType::meta, 0};

inline std::string_view name_of(Device device) { return device.is_meta() ? "meta" : "cpu"; }

/// The memory that holds a value at rest. On a CPU rank `device` is main memory.
enum class Tier : std::uint8_t { device, host, nvme };

inline std::string_view name_of(Tier tier) {
  return tier == Tier::device ? "device" : tier == Tier::host ? "host" : "nvme";
}

}  // namespace sg
