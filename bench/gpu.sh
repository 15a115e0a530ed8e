#!/usr/bin/env bash
# Measures on a GPU, beside PyTorch, and writes bench/results/<date>-<card>.json. Options go to
# bench/gpu.py.
#   bash bench/gpu.sh [--rounds 7]
# BUILD names the build folder (build/gpu), CUDA_ARCHITECTURES the cards to compile for (native).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=${BUILD:-build/gpu}

cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSHARDGRAD_CUDA=ON \
  -DCMAKE_CUDA_ARCHITECTURES="${CUDA_ARCHITECTURES:-native}" -DSHARDGRAD_TESTS=OFF
cmake --build "$build" --target cifar gpu_bench
exec python3 bench/gpu.py --build "$build" "$@"
