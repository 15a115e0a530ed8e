#!/usr/bin/env bash
# Installs what is missing, builds and runs the tests.
#   bash tests/run.sh [preset] [--target NAME]... [ctest options]
# preset: release (default), dev, asan or tsan. Targets: what to build, such as dist_test (default: all).
# Tests on real data run where SHARDGRAD_DATA names the folder that holds cifar-10-batches-bin/, or
# data/ does, where data/download_cifar10.sh puts it.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
preset=release
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
  preset=$1
  shift
fi
targets=()
while [ "${1:-}" = --target ]; do
  targets+=(--target "${2:?--target needs a name, such as dist_test}")
  shift 2
done

if [ -z "${SHARDGRAD_DATA:-}" ] && [ -f "$root/data/cifar-10-batches-bin/test_batch.bin" ]; then
  export SHARDGRAD_DATA=$root/data
fi

bash "$root/cmake/install-deps.sh"
cd "$root"
cmake --preset "$preset"
cmake --build --preset "$preset" "${targets[@]}"
runner=()
if [ "$preset" = tsan ] && setarch "$(uname -m)" --addr-no-randomize true 2>/dev/null; then
  # GCC 12's ThreadSanitizer dies where a kernel randomizes addresses by more bits than it knows.
  runner=(setarch "$(uname -m)" --addr-no-randomize)
fi
"${runner[@]}" ctest --preset "$preset" --parallel "$(nproc)" "$@"
