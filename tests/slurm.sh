#!/usr/bin/env bash
# Runs a command with a Slurm of one node around it, for the tests that skip without one:
#
#   bash tests/slurm.sh build/release/bin/examples_test --gtest_filter='*/srun'
#
# Debian's packages are unpacked into a scratch folder; nothing is installed. It asks nobody for a
# proof of who they are (auth/none) and listens on this host: for machines where that is no harm.
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: bash tests/slurm.sh COMMAND..." >&2; exit 2; }
cpus=${SLURM_SH_CPUS:-2}
scratch=$(mktemp -d)
daemons=()
finish() {
  for pid in ${daemons[@]+"${daemons[@]}"}; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$scratch"
}
trap finish EXIT

mkdir -p "$scratch"/{debs,root,state,spool}
packages=$(apt-get install -s --no-install-recommends slurm-wlm | awk '$1 == "Inst" {print $2}')
[ -n "$packages" ] || { echo "slurm-wlm is installed: start its daemons" >&2; exit 2; }
# shellcheck disable=SC2086  # words
(cd "$scratch/debs" && apt-get -q download $packages >/dev/null)
for package in "$scratch"/debs/*.deb; do dpkg -x "$package" "$scratch/root"; done

libraries=$(dirname "$(find "$scratch/root/usr/lib" -type d -name slurm-wlm)")
host=$(hostname -s)
cat >"$scratch/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/none
CredType=cred/none
PluginDir=$libraries/slurm-wlm
SlurmctldPort=46817
SlurmdPort=46818
SlurmctldPidFile=$scratch/slurmctld.pid
SlurmdPidFile=$scratch/slurmd.pid
SlurmctldLogFile=$scratch/slurmctld.log
SlurmdLogFile=$scratch/slurmd.log
StateSaveLocation=$scratch/state
SlurmdSpoolDir=$scratch/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
CONF
export SLURM_CONF=$scratch/slurm.conf
export PATH=$scratch/root/usr/bin:$scratch/root/usr/sbin:$PATH
export LD_LIBRARY_PATH=$libraries:$libraries/slurm-wlm${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
slurmctld-wlm -D -c >/dev/null 2>&1 &
daemons+=($!)
slurmd-wlm -D -d "$scratch/root/usr/sbin/slurmstepd-wlm" >/dev/null 2>&1 &
daemons+=($!)
for _ in $(seq 100); do
  sinfo -h -o %T 2>/dev/null | grep -q idle && break
  sleep 0.1
done
if ! sinfo -h -o %T | grep -q idle; then
  tail -n 20 "$scratch"/*.log >&2
  exit 1
fi
srun --version
"$@"
