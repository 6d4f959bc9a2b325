#!/usr/bin/env bash
# Slurm of Debian's packages, for the tests marked slurm. Needs root; says why where it cannot, and then fails.
set -euo pipefail
if command -v slurmctld slurmd sbatch munged >/dev/null; then exit 0; fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "Slurm cannot be installed here: it takes root and apt-get; the tests marked slurm will be skipped" >&2
  exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge >/dev/null
