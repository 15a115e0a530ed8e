// Run-time choice of the instruction set. The files of core/kernels/isa/ are compiled once for each
// of x86-64-v2, v3 (AVX2, FMA) and v4 (AVX-512), in the namespace that SG_ISA names; a table of
// function pointers is picked at first use. A release binary therefore starts on any of them.
#pragma once

#include <type_traits>

namespace sg::kernels {

enum class Isa { generic, v2, v3, v4 };  // generic: a build with kernels of one kind

/// The best set this processor has; SHARDGRAD_ISA=v2|v3|v4 asks for a lesser one (an unknown or
/// missing one throws; so does any where there is one kind alone, if this is called at all).
Isa active_isa();
const char* name_of(Isa isa);

/// The loops for values of type T (float or double) of a table that has both.
template <class T, class Table>
const auto& loops_of(const Table& table) {
  if constexpr (std::is_same_v<T, float>)
    return table.f32;
  else
    return table.f64;
}

}  // namespace sg::kernels

// SG_ISA_TABLE(Table, name) in a header declares `const Table& name()` that gives the table for
// active_isa(). Each file of core/kernels/isa/ defines `const Table& name##_table()` in namespace
// sg::kernels::SG_ISA.
#if SG_ISA_X86
#define SG_ISA_TABLE(Table, name)                                               \
  namespace v2 {                                                                \
  const Table& name##_table();                                                  \
  }                                                                             \
  namespace v3 {                                                                \
  const Table& name##_table();                                                  \
  }                                                                             \
  namespace v4 {                                                                \
  const Table& name##_table();                                                  \
  }                                                                             \
  inline const Table& name() {                                                  \
    static const Table& table = active_isa() == Isa::v4   ? v4::name##_table()  \
                                : active_isa() == Isa::v3 ? v3::name##_table()  \
                                                          : v2::name##_table(); \
    return table;                                                               \
  }
#else
#define SG_ISA_TABLE(Table, name) \
  namespace generic {             \
  const Table& name##_table();    \
  }                               \
  inline const Table& name() { return generic::name##_table(); }
#endif
