#!/usr/bin/env bash
# Trains on a mesh of simulated CPU devices: the sharding of a pod, debugged on a laptop.
#
#   launch/local_mesh.sh 8 --config=t5/small:debug --data=DIR --workdir=runs/mesh --set=mesh.fsdp=2 --set=mesh.tensor=2
#
# The first argument is the number of devices; the rest goes to t5x_like.train as it stands.
set -euo pipefail
if [[ $# -lt 2 || ! $1 =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: launch/local_mesh.sh DEVICES --config=... --data=... --workdir=... [--set=mesh.fsdp=2 ...]" >&2
  exit 64
fi
devices=$1
shift
python="$(dirname "$0")/../.venv/bin/python"
[[ -x $python ]] || python=python3
exec "$python" -m t5x_like.train --cpu_devices="$devices" "$@"
