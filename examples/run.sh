#!/usr/bin/env bash
# Installs what is missing, builds, and trains the CIFAR-10 tutorial net on four ranks under every
# plan: on CIFAR-10 where it is found, else on the synthetic set. Options go to the program cifar:
#   bash examples/run.sh --steps 50 --net vgg
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

bash "$root/cmake/install-deps.sh"
cd "$root"
cmake --preset release
cmake --build --preset release --target cifar linear

# What is not among the given options is filled in.
given() {
  local name option
  for option in "${options[@]}"; do
    for name in "$@"; do
      case $option in "$name" | "$name="*) return 0 ;; esac
    done
  done
  return 1
}
options=("$@")
given --plan --stage || options=(--plan all "${options[@]}")
given --ranks || options+=(--ranks 4)
if ! given --data; then
  for folder in "${SHARDGRAD_DATA:+$SHARDGRAD_DATA/cifar-10-batches-bin}" "${SHARDGRAD_DATA:-}" \
                data/cifar-10-batches-bin; do
    if [ -n "$folder" ] && [ -f "$folder/test_batch.bin" ]; then
      options+=(--data "$folder")
      break
    fi
  done
fi

echo "running: build/release/bin/cifar ${options[*]}"
exec build/release/bin/cifar "${options[@]}"
