// All kernel tables that this processor can run, to compare them with each other.
#pragma once

#include <gtest/gtest.h>

#include "core/kernels/elementwise.h"
#include "core/kernels/isa.h"
#include "core/kernels/matmul.h"
#include "core/kernels/random.h"
#include "core/kernels/reduce.h"
#include "core/kernels/row_kernels.h"

namespace sg::test {

struct IsaTables {
  const char* name;
  const kernels::ElementwiseKernels& (*elementwise)();
  const kernels::ConvertKernels& (*convert)();
  const kernels::ReduceKernels& (*reduce)();
  const kernels::RowKernels& (*rows)();
  const kernels::RandomKernels& (*random)();
  const kernels::MatmulKernels& (*matmul)();
};

#define SG_TEST_TABLES(isa)                                                             \
  IsaTables {                                                                           \
#isa, kernels::isa::elementwise_kernels_table, kernels::isa::convert_kernels_table, \
        kernels::isa::reduce_kernels_table, kernels::isa::row_kernels_table,            \
        kernels::isa::random_kernels_table, kernels::isa::matmul_kernels_table          \
  }

/// Calls f(tables) for each instruction set, the least one first.
template <class F>
void for_each_isa(const F& f) {
  const auto run = [&](const IsaTables& tables) {
    SCOPED_TRACE(tables.name);
    f(tables);
  };
#if SG_ISA_X86
  run(SG_TEST_TABLES(v2));
  if (kernels::active_isa() >= kernels::Isa::v3) run(SG_TEST_TABLES(v3));
  if (kernels::active_isa() >= kernels::Isa::v4) run(SG_TEST_TABLES(v4));
#else
  run(SG_TEST_TABLES(generic));
#endif
}

#undef SG_TEST_TABLES

}  // namespace sg::test
