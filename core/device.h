// Where bytes live: the device that computes on them, and the tier that holds them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sg {

/// `meta` has shapes, strides and ledger entries, but no bytes: ops on it only infer shapes. `cuda`
/// is one of this machine's GPUs; work on it is queued on the rank's stream and runs later.
enum class DeviceType : std::uint8_t { cpu, meta, cuda };

struct Device {
  DeviceType type = DeviceType::cpu;
  std::int8_t index = 0;
  bool operator==(const Device&) const = default;
  bool is_meta() const { return type == DeviceType::meta; }
  bool is_cuda() const { return type == DeviceType::cuda; }
};

inline constexpr Device kCpu{DeviceType::cpu, 0};
inline constexpr Device kMeta{DeviceType::meta, 0};
/// The machine's GPU number `index`.
inline constexpr Device cuda_device(int index) {
  return {DeviceType::cuda, static_cast<std::int8_t>(index)};
}

/// "cpu", "meta", "cuda:0".
std::string name_of(Device device);
/// "cpu", "meta", "cuda" (number 0) or "cuda:1". Errors: another text, with these.
Device device_of(std::string_view name);

/// The memory that holds a value at rest. `device` is that of the rank: main memory on the CPU.
enum class Tier : std::uint8_t { device, host, nvme };

inline std::string_view name_of(Tier tier) {
  return tier == Tier::device ? "device" : tier == Tier::host ? "host" : "nvme";
}

}  // namespace sg
