#!/usr/bin/env bash
# Downloads CIFAR-10 (binary version) from its authors' page, checks size and checksum, and unpacks it.
#   bash data/download_cifar10.sh [--dir DIR] [--url URL] ...       (--help lists the options)
# Exit status: 0 the data is there and whole, 1 it could not be had, 2 bad usage.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=$here
url=https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz
size=170052171                         # as published on https://www.cs.toronto.edu/~kriz/cifar.html
md5=c32a1d4ab5d03f1284b67883e8d87530
records=10000
keep=0
name=cifar-10-batches-bin

usage() {
  cat <<TEXT
usage: bash data/download_cifar10.sh [options]
  --dir DIR      folder that gets $name/ (default: $here)
  --url URL      where the archive is, for a mirror (default: $url)
  --size BYTES   expected size of the archive (default: $size)
  --md5 HEX      expected MD5 sum of the archive (default: $md5)
  --records N    expected records in each file (default: $records)
  --keep         keep the archive beside the unpacked folder
TEXT
}
die() { echo "download_cifar10: $1" >&2; exit "${2:-1}"; }

while [ $# -gt 0 ]; do
  case $1 in
    --dir | --url | --size | --md5 | --records)
      [ $# -ge 2 ] || die "$1 needs a value; see --help" 2
      case $1 in --size | --records)
        [[ $2 =~ ^[0-9]+$ ]] || die "$1 $2 is not a number; see --help" 2 ;;
      esac
      printf -v "${1#--}" %s "$2"
      shift 2 ;;
    --keep) keep=1; shift ;;
    --help | -h) usage; exit 0 ;;
    *) die "unknown option $1; see --help" 2 ;;
  esac
done

bytes_of() { wc -c < "$1" | tr -d ' '; }

md5_of() {
  if command -v md5sum > /dev/null; then md5sum < "$1" | cut -d ' ' -f 1
  elif command -v md5 > /dev/null; then md5 -q "$1"
  else die "neither md5sum nor md5 is here to check the archive; install coreutils"
  fi
}

# Says what is wrong with a folder of data, or nothing.
fault_of() {
  local file
  for file in data_batch_{1..5}.bin test_batch.bin; do
    [ -f "$1/$file" ] || { echo "$1/$file is missing"; return; }
    [ "$(bytes_of "$1/$file")" -eq $((records * 3073)) ] ||
      { echo "$1/$file has $(bytes_of "$1/$file") bytes, expected $((records * 3073))"; return; }
  done
}

# Retries twice, gives up on a server that does not answer for 20 s or sends nothing for a minute.
fetch() {
  if command -v curl > /dev/null; then
    curl --fail --location --show-error --silent --retry 2 --retry-delay 1 --connect-timeout 20 \
      --speed-limit 1 --speed-time 60 --output "$2" "$1"
  elif command -v wget > /dev/null; then
    wget --no-verbose --tries=3 --waitretry=1 --timeout=60 --output-document="$2" "$1"
  else
    die "neither curl nor wget is here; install one (apt-get install curl)"
  fi
}

target=$dir/$name
if [ -e "$target" ]; then
  fault=$(fault_of "$target")
  [ -z "$fault" ] || die "$target is there, but $fault; delete the folder and run this again"
  echo "$target is there and whole"
  exit 0
fi

mkdir -p "$dir" || die "cannot make the folder $dir"
# Everything happens in a folder of its own, on the same disk: $target appears whole or not at all.
work=$(mktemp -d "$dir/.cifar10.XXXXXX") || die "cannot write to $dir"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
archive=$work/archive.tar.gz

echo "downloading $url ($size bytes)"
fetch "$url" "$archive" ||
  die "cannot download $url; try again later, or name a mirror with --url"
got=$(bytes_of "$archive")
[ "$got" -eq "$size" ] ||
  die "the archive from $url has $got bytes, expected $size: a broken download or another file; run this again"
got=$(md5_of "$archive")
[ "$got" = "$md5" ] ||
  die "the archive from $url has MD5 $got, expected $md5: not the published file, and not unpacked"
tar -xzf "$archive" -C "$work" || die "cannot unpack the archive from $url"
fault=$(fault_of "$work/$name")
[ -z "$fault" ] || die "the archive from $url is not CIFAR-10's binary version: ${fault#"$work"/}"

mv "$work/$name" "$target"
if [ "$keep" -eq 1 ]; then mv "$archive" "$dir/cifar-10-binary.tar.gz"; fi
echo "CIFAR-10 is in $target; train on it with --data $dir"
