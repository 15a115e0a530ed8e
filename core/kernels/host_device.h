// SG_HD marks functions that the CPU's and the GPU's kernels share. They are inlined wherever they
// are used: kernels are compiled once for each instruction set, and a function left out of line
// there could be linked into code for an older processor.
#pragma once

#if defined(__CUDACC__)
#define SG_HD __host__ __device__ __forceinline__
#else
#define SG_HD inline __attribute__((always_inline))
#endif
