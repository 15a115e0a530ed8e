#!/usr/bin/env bash
# All plans over many steps, for every net, number of ranks and option that must change no bit: what
# the suites do over a few steps. Exit status 1 if a bit or a byte differs anywhere.
#
#   bash tests/sweep.sh            200 steps; vgg and resnet20 take the longest
#   bash tests/sweep.sh 20 mlp     as many steps, these nets
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

steps=${1:-200}
nets=${*:2}
cifar=${SHARDGRAD_BIN:-build/release/bin}/cifar
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=0

for net in ${nets:-tutorial mlp vgg resnet20}; do
  for ranks in 1 2 3 4 8; do
    for options in "" "--accumulate 2" "--checkpoint-activations" "--clip-norm 1" \
      "--accumulate 2 --checkpoint-activations --clip-norm 1" \
      "--dtype bf16 --accumulate 2 --checkpoint-activations --clip-norm 1"; do
      images=$((ranks * 2))
      case $options in *accumulate*) images=$((images * 2)) ;; esac
      # shellcheck disable=SC2086
      if "$cifar" --plan all --net "$net" --ranks "$ranks" --threads 1 --steps "$steps" \
        --batch-size "$images" --device cpu --no-eval $options >"$log" 2>&1; then
        verdict=equal
      else
        verdict="FAILED, status $?"
        failed=1
        tail -5 "$log"
      fi
      printf '%-8s  %d ranks  %-68s %s\n' "$net" "$ranks" "${options:-plain}" "$verdict"
    done
  done
done
exit $failed
