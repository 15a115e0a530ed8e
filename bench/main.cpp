// The microbenchmarks of this folder are one program: microbench --benchmark_filter=REGEX.
#include <benchmark/benchmark.h>

BENCHMARK_MAIN();
