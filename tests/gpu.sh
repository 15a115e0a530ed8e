#!/usr/bin/env bash
# Builds with CUDA and runs, on the GPU of this machine, all that can be run there:
#   bash tests/gpu.sh            tests, the example programs, compute-sanitizer
#   bash tests/gpu.sh --quick    without compute-sanitizer
# BUILD names the build folder (build/gpu), LOGS one for logs (the build folder's gpu-logs),
# CUDA_ARCHITECTURES the cards to compile for (native). Packages are looked for as always; those
# unpacked elsewhere are found through CMAKE_PREFIX_PATH. Every part runs, whatever the one before
# it gave; the exit status is 0 if all went well.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=${BUILD:-build/gpu}
logs=${LOGS:-$build/gpu-logs}
quick=0
[ "${1:-}" = --quick ] && quick=1
mkdir -p "$logs"
failed=()

part() {  # part NAME COMMAND...: its output goes to a log, its end to the screen
  local name=$1 start=$SECONDS
  shift
  if "$@" >"$logs/$name.log" 2>&1; then
    printf 'ok      %-28s %4d s\n' "$name" $((SECONDS - start))
  else
    failed+=("$name")
    printf 'FAILED  %-28s %4d s   %s\n' "$name" $((SECONDS - start)) "$logs/$name.log"
    tail -n 15 "$logs/$name.log" | sed 's/^/        | /'
  fi
}

part card nvidia-smi || true
part configure cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSHARDGRAD_CUDA=ON \
  -DCMAKE_CUDA_ARCHITECTURES="${CUDA_ARCHITECTURES:-native}" -DSHARDGRAD_INSTALL=OFF
part build cmake --build "$build"
[ ${#failed[@]} -eq 0 ] || { echo "nothing was built, so nothing ran" >&2; exit 1; }

# The rooms' suites with all tensors on the card, then what belongs to the CPU as well.
part suites ctest --test-dir "$build" --output-on-failure -L '^(cuda|streams)$'
part gpu-tests ctest --test-dir "$build" --output-on-failure -R 'Gpu'

# One card, several ranks: bits equal under every plan, the ledger as predicted (status 1 if not).
for ranks in 1 2 4; do
  for net in tutorial vgg resnet20; do
    part "plans-$net-$ranks" "$build/bin/cifar" --device cuda --plan all --ranks "$ranks" \
      --net "$net" --steps 20 --batch-size 64 --no-eval
    part "plans-$net-$ranks-accumulate" "$build/bin/cifar" --device cuda --plan all \
      --ranks "$ranks" --accumulate 2 --net "$net" --steps 10 --batch-size 64 --no-eval --clip-norm 1
    part "plans-$net-$ranks-bf16" "$build/bin/cifar" --device cuda --dtype bf16 --plan all \
      --ranks "$ranks" --accumulate 2 --net "$net" --steps 10 --batch-size 64 --no-eval
  done
done
# NCCL: with one rank, and with a rank a card where there are several, as threads and as processes.
cards=$(nvidia-smi --list-gpus 2>/dev/null | wc -l)
part nccl-1 env SHARDGRAD_BACKEND=nccl "$build/bin/cifar" --device cuda --plan all --steps 20 --no-eval
if [ "$cards" -ge 2 ]; then
  part nccl-threads env SHARDGRAD_BACKEND=nccl "$build/bin/cifar" --device cuda --plan all \
    --ranks "$cards" --steps 20 --no-eval
  part nccl-processes "$build/bin/shardgrad" run --nproc-per-node "$cards" "$build/bin/cifar" \
    --device cuda --plan all --steps 20 --no-eval
  part nccl-fast "$build/bin/shardgrad" run --nproc-per-node "$cards" "$build/bin/cifar" \
    --device cuda --plan zero3 --steps 20 --no-eval
else
  echo "skipped: NCCL between cards needs two of them"
fi
part learns "$build/bin/cifar" --device cuda --epochs 4
part learns-bf16 "$build/bin/cifar" --device cuda --dtype bf16 --epochs 4
part linear "$build/bin/linear" --device cuda --ranks 2 --plan zero3

if [ $quick -eq 0 ] && command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck initcheck synccheck; do
    for room in core autograd; do
      part "$tool-$room" env SHARDGRAD_TEST_DEVICE=cuda compute-sanitizer --tool "$tool" \
        --error-exitcode 9 "$build/bin/${room}_test" --gtest_brief=1 \
        "--gtest_filter=Gpu*:Elementwise*:Reduc*:Matmul*:Conv*:Pool*:BatchNorm*:Rows*:Golden*-*Slow*"
    done
    part "$tool-training" compute-sanitizer --tool "$tool" --error-exitcode 9 "$build/bin/cifar" \
      --device cuda --ranks 2 --plan zero3 --steps 3 --no-eval
  done
elif [ $quick -eq 0 ]; then
  echo "skipped: compute-sanitizer is not on PATH"
fi

if [ ${#failed[@]} -gt 0 ]; then
  printf 'failed: %s\n' "${failed[*]}" >&2
  exit 1
fi
echo "all parts passed; logs are in $logs"
