#include "core/kernels/isa.h"

#include <cstdlib>
#include <string_view>

#include "core/check.h"

namespace sg::kernels {
namespace {

Isa best_isa() {
#if !SG_ISA_X86
  return Isa::generic;
#else
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return Isa::v4;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi2"))
    return Isa::v3;
  return Isa::v2;
#endif
}

Isa choose_isa() {
  const Isa best = best_isa();
  const char* text = std::getenv("SHARDGRAD_ISA");
  if (text == nullptr) return best;
  const std::string_view asked = text;
  SG_CHECK(best != Isa::generic, "[isa] SHARDGRAD_ISA={}: this build has kernels of one kind",
           asked);
  for (const Isa isa : {Isa::v2, Isa::v3, Isa::v4}) {
    if (asked != name_of(isa)) continue;
    SG_CHECK(isa <= best, "[isa] SHARDGRAD_ISA={} but this processor has {} at most", asked,
             name_of(best));
    return isa;
  }
  fail("[isa] SHARDGRAD_ISA={} is not one of v2, v3, v4", asked);
}

}  // namespace

Isa active_isa() {
  static const Isa isa = choose_isa();
  return isa;
}

const char* name_of(Isa isa) {
  constexpr const char* kNames[] = {"generic", "v2", "v3", "v4"};
  return kNames[static_cast<int>(isa)];
}

}  // namespace sg::kernels
