#!/usr/bin/env bash
# Installs what building shardgrad needs from Debian's or Ubuntu's packages, and nothing where all of
# it is there. Run it, or let examples/run.sh and tests/run.sh do so.
set -euo pipefail

if ! command -v apt-get >/dev/null 2>&1; then
  echo "no apt-get here, so nothing is installed. Needed: a C++20 compiler (g++ >= 12 or" \
    "clang++ >= 14), CMake >= 3.25, Ninja, fmt, nlohmann-json, CLI11, GoogleTest; used where" \
    "found: oneDNN, OpenMP, Google Benchmark, Gloo with OpenSSL." >&2
  exit 0
fi

required=()
optional=()
have_command() { command -v "$1" >/dev/null 2>&1; }
have_package() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}
have_command g++ || have_command clang++ || required+=(g++)
have_command cmake || required+=(cmake)
have_command ninja || required+=(ninja-build)
for package in libfmt-dev nlohmann-json3-dev libcli11-dev libgtest-dev; do
  have_package "$package" || required+=("$package")
done
# Not every architecture has oneDNN, whose place our own kernels take; without Gloo ranks are threads.
for package in libdnnl-dev libbenchmark-dev libgloo-dev libssl-dev; do
  have_package "$package" || optional+=("$package")
done

missing=("${required[@]}" "${optional[@]}")
if [ ${#missing[@]} -gt 0 ]; then
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! have_command sudo; then
      echo "missing: ${missing[*]}; and there is no sudo here. As root:" >&2
      echo "  apt-get update && apt-get install --no-install-recommends ${missing[*]}" >&2
      exit 1
    fi
    as_root=(sudo)
  fi
  apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@"
  }
  install() { apt install -y --no-install-recommends "$@" </dev/null >/dev/null; }

  echo "installing from the distribution's packages: ${missing[*]}"
  # The list of packages may be absent (a bare image) or old (versions that are gone).
  if ! install "${missing[@]}" 2>/dev/null; then
    apt update </dev/null
    [ ${#required[@]} -eq 0 ] || install "${required[@]}"
    for package in "${optional[@]}"; do
      install "$package" || echo "going on without $package" >&2
    done
  fi
fi

version=$(cmake --version | sed -n 's/^cmake version \([0-9]*\.[0-9]*\).*/\1/p')
if [ "$(printf '%s\n3.25\n' "$version" | sort -V | head -n 1)" != 3.25 ]; then
  echo "CMake here is $version, and 3.25 is needed: Debian 12 and Ubuntu 24.04 have it" >&2
  exit 1
fi
