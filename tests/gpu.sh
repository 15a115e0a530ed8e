#!/usr/bin/env bash
# Builds with CUDA and runs, on the GPU of this machine, all that can be run there:
#   bash tests/gpu.sh                    everything
#   bash tests/gpu.sh build suites       these groups, in this order, of
#     build suites plans nccl programs sanitizer
#   bash tests/gpu.sh --quick            all but compute-sanitizer
#   bash tests/gpu.sh --budget 540 ...   as much as begins within so many seconds, each part being
#                                        cut off there; what is left is named
#   bash tests/gpu.sh --resume ...       without what has passed since the last build that changed
#                                        anything
# Variables: BUILD, the build folder (build/gpu). LOGS, a folder for summary.txt, a line a part, and
# parts.log, the end of what each said (default: logs/ in the build folder, where all of it is too);
# running.log there is that of a part that was killed. CUDA_ARCHITECTURES, the cards to compile for
# (native). JOBS, as many compilers at once. LIMIT, seconds that a part may take (600). PACKAGES, a
# folder of .deb files to unpack and build with where nothing can be installed.
# Every part runs, whatever the one before it gave. Exit status: 0 if all passed; 1 if one failed,
# or was not run for want of time; 2 for bad usage.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
root=$PWD

usage() {
  sed -n '2,19s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}
all=(build suites plans nccl programs sanitizer)
groups=()
quick=0 resume=0 budget=0
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=1 ;;
    --resume) resume=1 ;;
    --budget)
      [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || usage
      budget=$2
      shift
      ;;
    *)
      [[ " ${all[*]} " == *" $1 "* ]] || usage
      groups+=("$1")
      ;;
  esac
  shift
done
if [ ${#groups[@]} -eq 0 ]; then
  groups=("${all[@]}")
  [ $quick -eq 0 ] || groups=("${all[@]:0:5}")
fi

mkdir -p "${BUILD:-build/gpu}/logs" || exit 2
build=$(cd "${BUILD:-build/gpu}" && pwd)
mkdir -p "${LOGS:-$build/logs}" || exit 2
logs=$(cd "${LOGS:-$build/logs}" && pwd)
passed=$build/logs/passed.txt
touch "$passed"
most=${LIMIT:-600}
failed=() unrun=()

say() { printf '%s\n' "$*" | tee -a "$logs/summary.txt"; }

part() {  # part NAME COMMAND...: its output goes to a log, its end to the screen
  local name=$1 start=$SECONDS limit=$most log=$logs/running.log status=0 verdict lines
  shift
  if [ $resume -eq 1 ] && [ "${group:-}" != build ] && grep -qxF "$name" "$passed"; then
    say "before  $name"
    return 0
  fi
  if [ "$budget" -gt 0 ]; then
    limit=$((budget - SECONDS))
    [ $limit -le "$most" ] || limit=$most
    if [ "$limit" -lt 5 ]; then
      unrun+=("$name")
      return 1
    fi
  fi
  printf '%s\n' "$*" >"$log"
  timeout --kill-after=10 "$limit" "$@" >>"$log" 2>&1 || status=$?
  verdict=ok lines=60
  if [[ $status =~ ^(124|137)$ ]] && [ "$limit" -lt "$most" ]; then
    verdict=cut lines=2000
    unrun+=("$name")
  elif [ $status -ne 0 ]; then
    verdict=FAILED lines=2000
    failed+=("$name")
  else
    printf '%s\n' "$name" >>"$passed"
  fi
  say "$(printf '%-7s %-30s %4d s' $verdict "$name" $((SECONDS - start)))"
  case $status in
    124 | 137) say "        it was ended after $limit s" ;;
    77) say "        it found no GPU" ;;
  esac
  if [ $status -ne 0 ]; then
    tail -n 15 "$log" | cut -c 1-200 | sed 's/^/        | /' | tee -a "$logs/summary.txt"
  fi
  {
    printf '\n===== %s: %s, status %d, %d s\n' "$name" $verdict $status $((SECONDS - start))
    head -n 1 "$log" && tail -n +2 "$log" | tail -n $lines
  } >>"$logs/parts.log"
  mv "$log" "$build/logs/$name.log"
  return $status
}
skipped=()
skip() {
  skipped+=("$1")
  say "skipped $1: $2"
}

# ---- what is not where CMake and the loader look

add_path() { export "$1=$2${!1:+:${!1}}"; }

prepare() {
  if [ -n "${PACKAGES:-}" ]; then
    local to=$build/packages deb
    if [ ! -e "$to/complete" ]; then
      for deb in "$PACKAGES"/*.deb; do dpkg -x "$deb" "$to" || return 1; done
      touch "$to/complete"
    fi
    add_path CMAKE_PREFIX_PATH "$to/usr"
    add_path LD_LIBRARY_PATH "$to/usr/lib"
    add_path LD_LIBRARY_PATH "$to/usr/lib/$(uname -m)-linux-gnu"
    # Their CMake files are of older days; no effect before CMake 4.
    export CMAKE_POLICY_VERSION_MINIMUM=3.5
  fi
  if ! command -v nvcc >/dev/null && [ -x /usr/local/cuda/bin/nvcc ]; then
    export PATH=$PATH:/usr/local/cuda/bin
  fi
  local toolkit
  toolkit=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc || echo /none/bin/nvcc)")")")
  # Python's packages bring NCCL and cuBLAS along, where the toolkit does not.
  local headers
  if [ ! -e "$toolkit/include/nccl.h" ] && [ ! -e /usr/include/nccl.h ]; then
    headers=$(in_python include/nccl.h) && export NCCL_ROOT=${NCCL_ROOT:-${headers%/include/nccl.h}}
  fi
  if [ -n "${NCCL_ROOT:-}" ]; then add_path LD_LIBRARY_PATH "$NCCL_ROOT/lib"; fi
  if [ ! -e "$toolkit/include/cublasLt.h" ] && headers=$(in_python include/cublasLt.h); then
    add_path CPATH "${headers%/cublasLt.h}"
    add_path LD_LIBRARY_PATH "${headers%/include/cublasLt.h}/lib"
  elif [ -d "$toolkit/lib64" ]; then
    export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$toolkit/lib64
  fi
}
in_python() {  # the path of that file in a package of NVIDIA's
  python3 - "$1" 2>/dev/null <<'END'
import glob, sys
import nvidia
for root in nvidia.__path__:
    for path in sorted(glob.glob(f"{root}/*/{sys.argv[1]}")):
        sys.exit(print(path))
sys.exit(1)
END
}

# ---- groups

run_build() {
  part card nvidia-smi
  part configure cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSHARDGRAD_CUDA=ON \
    -DCMAKE_CUDA_ARCHITECTURES="${CUDA_ARCHITECTURES:-native}" -DSHARDGRAD_INSTALL=OFF \
    -DSHARDGRAD_TESTS=ON -DSHARDGRAD_EXAMPLES=ON -DSHARDGRAD_CLI=ON -DSHARDGRAD_BENCH=ON || return
  local jobs=() before
  [ -z "${JOBS:-}" ] || jobs=(--parallel "$JOBS")
  before=$(cksum "$build"/bin/* 2>/dev/null)
  # One target after the other, the programs first: what is built by the end of the time can run.
  part build-programs cmake --build "$build" "${jobs[@]}" \
    --target cifar linear gpu_bench shardgrad_cli
  part build-tests cmake --build "$build" "${jobs[@]}" \
    --target core_test autograd_test nn_test optim_test data_test dist_test
  [ "$before" = "$(cksum "$build"/bin/* 2>/dev/null)" ] || : >"$passed"
}

# A test program with its tensors on the card. Its exit status is 77 where there is none.
suite() {  # suite NAME ROOM FILTER [VARIABLE=VALUE...]
  part "$1" env SHARDGRAD_TEST_DEVICE=cuda "${@:4}" "$build/bin/$2_test" --gtest_brief=1 \
    "--gtest_filter=$3"
}

run_suites() {
  local room
  for room in core autograd nn optim data dist; do
    suite "suite-$room" $room "-Slow*:*/Slow*:Gloo*:*/Gloo*:Store*:*/Store*:Nccl*:*/Nccl*"
  done
  # Lanes that are late at random: a wait that is missing between two changes bits.
  suite delays-dist dist "All/Bits.EqualWithEveryOption/*:Zero3*:*Graph*" SHARDGRAD_CUDA_DELAY=300
  suite delays-data data "*GpuLoader*:*Loader*-*Errors*" SHARDGRAD_CUDA_DELAY=300
  # The CPU's ranks beside a GPU: tests that name both devices themselves.
  for room in core optim; do
    part "beside-$room" "$build/bin/${room}_test" --gtest_brief=1 "--gtest_filter=*Gpu*"
  done
}

# One card, several ranks: bits equal under every plan, the ledger as predicted (status 1 if not).
run_plans() {
  local ranks net options=(--device cuda --plan all --no-eval --batch-size 64)
  for ranks in 1 2 4; do
    for net in tutorial vgg resnet20; do
      part "plans-$net-$ranks" "$build/bin/cifar" "${options[@]}" --ranks $ranks --net $net \
        --steps 20
      part "plans-$net-$ranks-accumulate" "$build/bin/cifar" "${options[@]}" --ranks $ranks \
        --net $net --steps 10 --accumulate 2 --clip-norm 1
      part "plans-$net-$ranks-bf16" "$build/bin/cifar" "${options[@]}" --ranks $ranks \
        --net $net --steps 10 --accumulate 2 --dtype bf16
    done
  done
}

# With one rank, and with a rank a card where there are several, as threads and as processes.
run_nccl() {
  if ! grep -q 'NCCL  *[0-9]' "$build/logs/configure.log" 2>/dev/null; then
    skip nccl "the build found no nccl.h of 2.18 or later (set NCCL_ROOT)"
    return
  fi
  local cards nccl
  nccl=(env SHARDGRAD_BACKEND=nccl "$build/bin/cifar" --device cuda --plan all --no-eval)
  cards=$(nvidia-smi --list-gpus 2>/dev/null | wc -l)
  suite suite-nccl dist "Nccl*:*/Nccl*"
  part nccl-1 "${nccl[@]}" --steps 20
  part nccl-1-accumulate "${nccl[@]}" --steps 10 --accumulate 2 --clip-norm 1 --net resnet20
  if [ "$cards" -lt 2 ]; then
    skip nccl-between-cards "it needs two of them, there are $cards"
    return
  fi
  part nccl-threads "${nccl[@]}" --ranks "$cards" --steps 20
  part nccl-processes "$build/bin/shardgrad" run --nproc-per-node "$cards" "$build/bin/cifar" \
    --device cuda --plan all --steps 20 --no-eval
  part nccl-fast "$build/bin/shardgrad" run --nproc-per-node "$cards" "$build/bin/cifar" \
    --device cuda --plan zero3 --steps 20 --no-eval
}

learns() {  # learns PERCENT COMMAND...: the test accuracy that it prints is at least that
  "${@:2}" | tee "$build/logs/learned.txt"
  [ "${PIPESTATUS[0]}" -eq 0 ] || return 1
  awk -v least="$1" '/^test accuracy:/ { found = 1; if ($3 < least) exit 1 }
    END { if (!found) exit 1 }' "$build/logs/learned.txt"
}

same_losses() {  # same_losses COMMAND...: with and without CUDA graphs
  local options
  for options in "" --no-graphs; do
    "$@" $options --metrics "$build/logs/losses$options.jsonl" | tee "$build/logs/same.txt"
    [ "${PIPESTATUS[0]}" -eq 0 ] || return 1
    grep -q "CUDA graphs: $([ -z "$options" ] && echo micro-batches || echo none)" \
      "$build/logs/same.txt" || return 1
    grep -o '"loss_bits": *"[0-9a-f]*"' "$build/logs/losses$options.jsonl" \
      >"$build/logs/bits$options.txt" || return 1
  done
  diff "$build/logs/bits.txt" "$build/logs/bits--no-graphs.txt"
}

run_programs() {
  export -f learns same_losses
  export build
  part learns bash -c 'learns "$@"' bash 85 "$build/bin/cifar" --device cuda --epochs 3
  part learns-zero3 bash -c 'learns "$@"' bash 85 "$build/bin/cifar" --device cuda --epochs 3 \
    --ranks 2 --plan zero3
  part learns-bf16 bash -c 'learns "$@"' bash 80 "$build/bin/cifar" --device cuda --epochs 3 \
    --dtype bf16
  local net
  for net in tutorial vgg resnet20; do  # steps as graphs, and kernel by kernel: the same losses
    part "graphs-$net" bash -c 'same_losses "$@"' bash "$build/bin/cifar" --device cuda --net $net \
      --steps 30 --no-eval
  done
  part linear "$build/bin/linear" --device cuda --ranks 2 --plan zero3
}

# Its tools slow a kernel down ten to a hundred times: a few suites and steps each. Errors of calls
# are not reported, as tests make some on purpose and every call is checked.
run_sanitizer() {
  if ! command -v compute-sanitizer >/dev/null; then
    skip sanitizer "compute-sanitizer is not on PATH"
    return
  fi
  local tool under core
  core='GpuContext*:GpuRows*:Reductions*:Elementwise*:Matmul*:Linear*:Conv2d*:ImageOps*'
  core+=':Embedding*:Dropout*'
  for tool in memcheck racecheck initcheck synccheck; do
    under=(compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 20)
    [ $tool != memcheck ] || under+=(--report-api-errors no)
    part "$tool-training" "${under[@]}" "$build/bin/cifar" --device cuda --ranks 2 --plan zero3 \
      --steps 3 --clip-norm 1 --no-eval
    part "$tool-resnet20" "${under[@]}" "$build/bin/cifar" --device cuda --net resnet20 \
      --batch-size 8 --steps 3 --no-eval
    part "$tool-core" env SHARDGRAD_TEST_DEVICE=cuda "${under[@]}" "$build/bin/core_test" \
      --gtest_brief=1 "--gtest_filter=$core"
    part "$tool-optim" "${under[@]}" "$build/bin/optim_test" --gtest_brief=1 "--gtest_filter=Gpu.*"
    part "$tool-graphs" env SHARDGRAD_TEST_DEVICE=cuda "${under[@]}" "$build/bin/dist_test" \
      --gtest_brief=1 "--gtest_filter=Graph.*:All/Graphs*convnet_zero3*"
    part "$tool-golden" env SHARDGRAD_TEST_DEVICE=cuda "${under[@]}" "$build/bin/autograd_test" \
      --gtest_brief=1 "--gtest_filter=Golden*"
  done
}

date '+=== %Y-%m-%d %H:%M:%S' >>"$logs/summary.txt"
prepare || { echo "the packages in $PACKAGES cannot be unpacked" >&2; exit 1; }
for group in "${groups[@]}"; do
  if [ "$group" != build ] && [ ! -x "$build/bin/cifar" ]; then
    say "nothing is built in $build: bash tests/gpu.sh build"
    failed+=("$group")
    continue
  fi
  cd "$root" && "run_$group"
done

[ ${#unrun[@]} -eq 0 ] || say "not run, or not to its end, for want of time: ${unrun[*]}"
[ ${#failed[@]} -eq 0 ] || say "failed: ${failed[*]}"
[ $((${#unrun[@]} + ${#failed[@]})) -eq 0 ] || exit 1
[ ${#skipped[@]} -eq 0 ] || say "not run here, see above: ${skipped[*]}"
say "all that was run passed; logs are in $logs and $build/logs"
