#!/usr/bin/env bash
# Measures on a GPU, beside PyTorch, and writes bench/results/<date>-<card>.json. Options go to
# bench/gpu.py.
#   bash bench/gpu.sh [--cases tutorial vgg kernels] [--rounds 7] [--out FILE]
# BUILD names the build folder (build/gpu). What is not built yet `bash tests/gpu.sh build` builds,
# which knows more variables. Where there is no git, COMMIT names the commit.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=${BUILD:-build/gpu}

if [ ! -x "$build/bin/gpu_bench" ] || [ ! -x "$build/bin/cifar" ]; then
  bash tests/gpu.sh build
else
  cmake --build "$build" --target cifar gpu_bench
fi
exec python3 bench/gpu.py --build "$build" "$@"
