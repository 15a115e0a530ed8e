#include "core/device.h"

#include <charconv>

#include "core/check.h"

namespace sg {

std::string name_of(Device device) {
  if (device.is_cuda()) return "cuda:" + std::to_string(device.index);
  return device.is_meta() ? "meta" : "cpu";
}

Device device_of(std::string_view name) {
  if (name == "cpu") return kCpu;
  if (name == "meta") return kMeta;
  if (name == "cuda") return cuda_device(0);
  int index = -1;
  if (name.starts_with("cuda:")) {
    const char* const last = name.data() + name.size();
    const auto [end, error] = std::from_chars(name.data() + 5, last, index);
    if (error != std::errc() || end != last) index = -1;
  }
  SG_CHECK(index >= 0 && index < 128, "[device] '{}' is no device; expected cpu, cuda or cuda:N",
           name);
  return cuda_device(index);
}

}  // namespace sg
