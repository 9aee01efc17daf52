"""Trains on Google Kubernetes Engine: writes a JobSet manifest for TPU slices or GPU nodes, and applies it.

  python -m launch.gke --name=t5-11b --topology='v5e:16x16*2' --image=us-docker.pkg.dev/P/R/t5x_like:1 \\
      --claim=filestore:/mnt/share -- --config=t5/11b:v5e --data=/mnt/share/c4 --workdir=/mnt/share/runs/11b

One job a slice, one pod a host (GPUs: one job, one pod a node). When a pod is evicted or a node goes away, all jobs
start again and go on in the same --workdir, at most --restarts times. Exit codes by which training says that it would
stop again (64, 65, 70, 73, 76, 77) end the JobSet. --dry_run prints the manifest and the command; --manifest=FILE keeps
it. --claim mounts a persistent volume claim: CLAIM:/PATH, ReadWriteMany.

Needs the JobSet controller (jobset.sigs.k8s.io) in the cluster, and an image with this repository in /app.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from launch import common, xla_flags
from launch.common import HOPELESS, Shell
from t5x_like.errors import UserError
from t5x_like.planning import topologies
from t5x_like.planning.topologies import Topology

ACCELERATORS = {
    "v4": "tpu-v4-podslice", "v5e": "tpu-v5-lite-podslice", "v5p": "tpu-v5p-slice", "v6e": "tpu-v6e-slice",
    "a100": "nvidia-a100-80gb", "h100": "nvidia-h100-80gb", "h200": "nvidia-h200-141gb",
}  # fmt: skip
"""Values of the node labels cloud.google.com/gke-tpu-accelerator and gke-accelerator (GKE documentation)."""


TPU_PORTS, COORDINATOR_PORT = (8471, 8080), 55527
"""What pods speak to each other on: libtpu's and its coordinator's (GKE documentation of TPUs); ours for GPUs."""


def hosts(topology: Topology) -> tuple[int, int, int]:
    """(jobs, pods of a job, chips of a pod): a job for each slice of a TPU, one job for all nodes of GPUs."""
    if topology.chip.platform == "gpu":
        return 1, topology.slices, topology.per_slice
    if topology.per_slice <= 4 or (topology.chip.dimensions == 2 and topology.per_slice == 8):
        return topology.slices, 1, topology.per_slice
    return topology.slices, topology.per_slice // 4, 4


def manifest(
    *,
    name: str,
    topology: Topology,
    image: str,
    train: Sequence[str],
    claim: str = "",
    restarts: int = 100,
    spot: bool = False,
    grace: int = 120,
    variables: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The JobSet."""
    jobs, pods, chips = hosts(topology)
    tpu = topology.chip.platform == "tpu"
    label = "cloud.google.com/gke-tpu-accelerator" if tpu else "cloud.google.com/gke-accelerator"
    selector = {label: ACCELERATORS[topology.chip.name]}
    if tpu:
        selector["cloud.google.com/gke-tpu-topology"] = topology.layout
    if spot:
        selector["cloud.google.com/gke-spot"] = "true"
    resource = {"google.com/tpu" if tpu else "nvidia.com/gpu": chips}
    script = f"exec {common.shlex.join(common.train_command(train))}"
    if not tpu and pods > 1:  # TPUs tell their neighbours; for GPUs the pods' names do
        script += (
            f" --coordinator_address={name}-slice-0-0.{name}:{COORDINATOR_PORT} --num_processes={pods}"
            ' --process_id="$JOB_COMPLETION_INDEX"'
        )
    container: dict[str, Any] = {
        "name": "train",
        "image": image,
        "workingDir": "/app",
        "command": ["/bin/sh", "-c", script],
        "env": [{"name": key, "value": value} for key, value in (variables or {}).items()],
        "ports": [{"containerPort": port} for port in (TPU_PORTS if tpu else (COORDINATOR_PORT,))],
        "resources": {"limits": resource, "requests": resource},
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": grace,
        "nodeSelector": selector,
        "containers": [container],
    }
    if claim:
        source, _, path = claim.partition(":")
        pod["volumes"] = [{"name": "share", "persistentVolumeClaim": {"claimName": source}}]
        container["volumeMounts"] = [{"name": "share", "mountPath": path}]
    hopeless = {
        "action": "FailJob",
        "onExitCodes": {"containerName": "train", "operator": "In", "values": sorted(map(int, HOPELESS))},
    }
    job = {
        "parallelism": pods,
        "completions": pods,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [hopeless]},
        "template": {"spec": pod},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": name,
            "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            "failurePolicy": {
                "maxRestarts": restarts,
                "rules": [{"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
            },
            "replicatedJobs": [{"name": "slice", "replicas": jobs, "template": {"spec": job}}],
        },
    }


def to_yaml(value: Any, indent: int = 0) -> str:
    """Block style; scalars as JSON, which YAML takes as it stands."""
    space = " " * indent
    if isinstance(value, dict) and value:
        return "\n".join(
            f"{space}{key if re.fullmatch(r'[A-Za-z0-9_]+', key) else json.dumps(key)}:"
            + (f"\n{to_yaml(v, indent + 2)}" if isinstance(v, (dict, list)) and v else f" {json.dumps(v)}")
            for key, v in value.items()
        )
    if isinstance(value, list) and value:
        return "\n".join(f"{space}- {to_yaml(v, indent + 2).lstrip()}" for v in value)
    return space + json.dumps(value)


FLAGS = flags.FlagValues()
_NAME = flags.DEFINE_string("name", "t5x-like", "of the JobSet", flag_values=FLAGS)
_TOPOLOGY = flags.DEFINE_string("topology", None, "v5e:16x16, v5p:4x4x4*2, h100:8*4", flag_values=FLAGS)
_IMAGE = flags.DEFINE_string("image", None, "with this repository in /app", flag_values=FLAGS)
_CLAIM = flags.DEFINE_string("claim", "", "CLAIM:/PATH, a volume that all pods share", flag_values=FLAGS)
_SPOT = flags.DEFINE_bool("spot", False, "on spot nodes", flag_values=FLAGS)
_GRACE = flags.DEFINE_integer(
    "grace", 120, "seconds from SIGTERM to the end", lower_bound=1, flag_values=FLAGS
)
_RESTARTS = flags.DEFINE_integer("restarts", 100, "at most", lower_bound=0, flag_values=FLAGS)
_XLA = flags.DEFINE_string(
    "xla_flags", "", "sets of launch/xla_flags.py, with commas [tpu-stack on TPUs]", flag_values=FLAGS
)
_MANIFEST = flags.DEFINE_string("manifest", "", "where the manifest is kept [NAME.yaml]", flag_values=FLAGS)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "print manifest and command, apply nothing", flag_values=FLAGS)


def main(train: list[str]) -> int:
    """Reads the flags, writes and applies the manifest."""
    for flag, example in (("topology", "v5e:4x4"), ("image", "us-docker.pkg.dev/P/R/t5x_like:1")):
        if not FLAGS[flag].value:
            raise UserError(
                f"--{flag} is missing", where=f"--{flag}", help=f"--{flag}={example}, for example"
            )
    topology = topologies.parse(_TOPOLOGY.value or "")
    if topology.chip.name not in ACCELERATORS:
        raise UserError(f"GKE has no {topology.chip.title}", where="--topology", help="--topology=v5e:4x4")
    if not re.fullmatch(r"\S+", _IMAGE.value or ""):
        raise UserError(f"{_IMAGE.value!r} cannot be the image", where="--image")
    if _CLAIM.value and not re.fullmatch(r"[a-z0-9.-]+:/[^\s:]+", _CLAIM.value):
        raise UserError("--claim reads CLAIM:/PATH", where=f"--claim={_CLAIM.value}")
    name = common.check_name(_NAME.value)
    text = to_yaml(
        manifest(
            name=name, topology=topology, image=_IMAGE.value or "", train=train, claim=_CLAIM.value,
            restarts=_RESTARTS.value, spot=_SPOT.value, grace=_GRACE.value,
            variables=xla_flags.environment(_XLA.value or ("tpu-stack" if topology.chip.platform == "tpu" else "")),
        )
    )  # fmt: skip
    path = Path(_MANIFEST.value or f"{name}.yaml")
    if _DRY_RUN.value:
        print(text)
    else:
        common.write(path, text + "\n")
    Shell(_DRY_RUN.value).must(["kubectl", "apply", "-f", str(path)])
    return 0


if __name__ == "__main__":
    common.start(main, FLAGS)
