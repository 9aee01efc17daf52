"""Trains on Cloud TPU VMs: asks for a slice, sets it up, trains on all its workers, and comes back after preemption.

  python -m launch.tpu_vm --action=keep --name=t5-base --zone=us-west4-a --topology=v5e:4x4 --spot \\
      --nfs=10.0.0.2:/share:/mnt/share -- --config=t5/base --data=/mnt/share/c4 --workdir=/mnt/share/runs/base

--action=queue     asks for the slice (a queued resource); two slices: --topology='v5e:4x4*2'
--action=create    makes it at once, or fails
--action=setup     copies this repository's HEAD to every worker, installs it there, mounts --nfs
--action=train     runs training on all workers; its flags stand behind `--`
--action=logs      brings the log of every worker to --logs
--action=delete    gives the slice back
--action=keep      all of it: queue, setup, train; after a preemption delete, and begin again in the same --workdir,
                   until training is done (0) or would stop again (64, 65, 70, 73, 76, 77). At most --restarts times;
                   training itself refuses (70) to begin at one step for ever. At the end logs are fetched and the slice
                   is deleted.

--dry_run prints every command, quoted, and runs none. All workers must see --workdir under one path: a Filestore share
(--nfs) or the like. What training needs to know of its neighbours it finds itself (jax.distributed).
"""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags

from launch import common, xla_flags
from launch.common import RETRY, Shell
from t5x_like.errors import Exit, UserError, did_you_mean
from t5x_like.planning import topologies
from t5x_like.planning.topologies import Topology

ROOT = Path(__file__).resolve().parent.parent
HOME, LOG, CODE, PID = "t5x_like", "train.log", "train.code", "train.pid"
"""On a worker, in its home: the folder of the code, the output of training, its last exit code, its process."""

SAVE_SECONDS = 300
"""That a training which was left behind has for its save."""

RUNTIMES = {
    "v4": "tpu-ubuntu2204-base",
    "v5e": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
"""Cloud TPU software versions (docs.cloud.google.com/tpu/docs/runtimes)."""

WAITING = ("ACCEPTED", "CREATING", "PROVISIONING", "WAITING_FOR_RESOURCES")
LOST = ("SUSPENDED", "SUSPENDING", "FAILED", "DELETING")
"""States of a queued resource (docs.cloud.google.com/tpu/docs/queued-resources). A spot slice that is taken away is
SUSPENDED; it never becomes ACTIVE again."""


SETUPS = 3
"""Times that setting up a slice that is there may fail in a row."""

AT_ONCE = 64
"""Workers of several slices that `queued-resources ssh` runs a command on at a time (gcloud 528.0.0, with
--batch-size=all too); the others would begin when the first have ended."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """Where training runs, and the commands about it. Attributes are the flags of their names."""

    name: str
    topology: Topology
    zone: str
    project: str = ""
    runtime: str = ""
    spot: bool = False
    reserved: bool = False
    nfs: str = ""
    python: str = "python3.11"

    @property
    def _place(self) -> list[str]:
        return [f"--zone={self.zone}", *([f"--project={self.project}"] if self.project else [])]

    @property
    def _kind(self) -> list[str]:
        tier = ["--spot"] if self.spot else ["--reserved"] if self.reserved else []
        return [f"--accelerator-type={self.topology.accelerator_type}", *tier]

    @property
    def _runtime(self) -> str:
        return self.runtime or RUNTIMES[self.topology.chip.name]

    @property
    def hosts(self) -> int:
        """Workers of a slice: a host has four chips; up to eight chips of v5e and v6e are on one."""
        small = self.topology.chip.dimensions == 2 and self.topology.per_slice <= 8
        return 1 if small else max(1, self.topology.per_slice // 4)

    def create(self) -> list[str]:
        if self.topology.slices > 1:
            raise UserError("several slices are to be had by --action=queue", where="--action=create")
        vm = ["gcloud", "compute", "tpus", "tpu-vm", "create", self.name]
        return [*vm, *self._place, *self._kind, f"--version={self._runtime}"]

    def queue(self) -> list[str]:
        slices = self.topology.slices
        nodes = (
            [f"--node-id={self.name}"]
            if slices == 1
            else [f"--node-count={slices}", f"--node-prefix={self.name}"]
        )
        resource = ["gcloud", "compute", "tpus", "queued-resources", "create", self.name]
        return [*resource, *nodes, *self._place, *self._kind, f"--runtime-version={self._runtime}"]

    def state(self) -> list[str]:
        resource = ["gcloud", "compute", "tpus", "queued-resources", "describe", self.name]
        return [*resource, *self._place, "--format=value(state.state)"]

    def delete(self) -> list[str]:
        """Of the queued resource and its nodes."""
        resource = ["gcloud", "compute", "tpus", "queued-resources", "delete", self.name]
        return [*resource, *self._place, "--force", "--quiet"]

    def delete_vm(self) -> list[str]:
        return ["gcloud", "compute", "tpus", "tpu-vm", "delete", self.name, *self._place, "--quiet"]

    def on_workers(self, command: str, worker: str = "all") -> list[str]:
        """`command`, a line of shell, on workers of all slices."""
        return [*self._reach("ssh", self.name, worker), f"--command={command}"]

    @property
    def workers(self) -> int:
        """Of all slices."""
        return self.topology.slices * self.hosts

    def to_workers(self, path: Path) -> list[str]:
        return [*self._reach("scp", f"{self.name}:", "all", str(path))]

    def from_worker(self, path: str, target: Path, worker: int, node: int) -> list[str]:
        command = self._reach("scp", f"{self.name}:{path}", str(worker), after=str(target))
        return [a if a != "--node=all" else f"--node={node}" for a in command]

    def _reach(self, verb: str, what: str, worker: str, *before: str, after: str = "") -> list[str]:
        paths = [*before, what, *([after] if after else [])]
        if self.topology.slices == 1:
            program = ["gcloud", "compute", "tpus", "tpu-vm", verb, *paths]
            return [*program, *self._place, f"--worker={worker}", "--quiet"]
        program = ["gcloud", "alpha", "compute", "tpus", "queued-resources", verb, *paths]
        return [*program, *self._place, "--node=all", f"--worker={worker}", "--quiet"]

    def setup_script(self, archive: str) -> str:
        """On a worker: unpack, install, mount."""
        steps: list[Sequence[str] | str] = [
            ["rm", "-rf", HOME],
            ["mkdir", "-p", HOME],
            ["tar", "-xzf", archive, "-C", HOME],
            ["cd", HOME],
            f"({self.python} -m venv .venv || "
            f"(sudo apt-get update -q && sudo apt-get install -qy {self.python}-venv && {self.python} -m venv .venv))",
            [".venv/bin/python", "-m", "pip", "install", "--quiet", "-e", ".[tpu,text]"],
        ]
        if self.nfs:
            share, _, folder = self.nfs.rpartition(":")
            steps += [
                "(command -v mount.nfs || sudo apt-get install -qy nfs-common)",
                ["sudo", "mkdir", "-p", folder],
                f"(mountpoint -q {common.shlex.quote(folder)} || "
                + common.shlex.join(["sudo", "mount", "-t", "nfs", "-o", "rw,hard", share, folder])
                + ")",
                ["sudo", "chmod", "a+rwx", folder],
            ]
        return common.script(*steps)

    def train_script(self, train: Sequence[str], variables: dict[str, str]) -> str:
        """On a worker: training, its output shown and kept; its exit code is kept too, since gcloud tells only whether
        all workers ended well. Where the connection breaks training goes on alone; so what an earlier one left behind
        is told to save and leave first."""
        command = common.with_environment(variables, common.train_command(train, ".venv/bin/python"))
        known = ["sh", "-c", f'echo $$ > ../{PID}; exec "$@"', "train", *command]
        run = f"{common.shlex.join(known)} 2>&1 | tee -ap ../{LOG}"
        stop = (
            f"if pid=$(cat ../{PID}) && grep -q t5x_like.train /proc/$pid/cmdline; then kill $pid; "
            f"timeout {SAVE_SECONDS} tail --pid=$pid -f /dev/null || kill -9 $pid; fi 2>/dev/null"
        )
        return common.script(
            ["cd", HOME], stop, ["rm", "-f", f"../{CODE}"], ["set", "-o", "pipefail"],
            f"{{ {run}; code=$?; echo $code > ../{CODE}; exit $code; }}",
        )  # fmt: skip


def pack(where: Slice, shell: Shell) -> Path:
    """HEAD of this repository as an archive."""
    archive = ROOT / "build" / f"t5x_like-{where.name}.tar.gz"
    if not shell.dry_run:
        archive.parent.mkdir(exist_ok=True)
    shell.must(["git", "-C", str(ROOT), "archive", "--format=tar.gz", f"--output={archive}", "HEAD"])
    return archive


def setup(where: Slice, shell: Shell, archive: Path) -> None:
    """What `pack` has packed, on every worker, installed."""
    shell.must(where.to_workers(archive))
    shell.must(where.on_workers(where.setup_script(archive.name)))


def logs(where: Slice, shell: Shell, folder: Path) -> int:
    """LOGS/NAME-SLICE-WORKER.log of every worker. What cannot be had is passed over, with gcloud's words; returns of
    how many workers that is."""
    if not shell.dry_run:
        folder.mkdir(parents=True, exist_ok=True)
    missed = 0
    for node in range(where.topology.slices):
        for worker in range(where.hosts):
            target = folder / f"{where.name}-{node}-{worker}.log"
            missed += shell.run(where.from_worker(LOG, target, worker, node)) != 0
    return missed


def keep(
    where: Slice,
    train: Sequence[str],
    shell: Shell,
    *,
    variables: dict[str, str],
    restarts: int,
    folder: Path,
    poll: float,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Trains until it is done or hopeless, on as many slices as that takes. Returns the exit code of training."""
    common.train_command(train)
    archive = pack(where, shell)
    _obtain(where, shell, poll, sleep)
    ready, failed = False, 0
    for attempt in range(restarts + 1):
        try:
            if attempt:
                print(f"restart {attempt} of at most {restarts}", flush=True)
                _obtain(where, shell, poll, sleep)
            if not ready:
                setup(where, shell, archive)
            ready, failed = True, 0
            code = _train_once(where, train, shell, variables)
        except UserError as e:  # a slice can go away at any moment, also while it is set up
            print(e, flush=True)
            code, failed = int(e.code), failed + 1
        state = _state(where, shell)
        if code == 0 or (state == "ACTIVE" and (code in common.HOPELESS or failed == SETUPS)):
            return _finish(where, shell, folder, code)
        print(f"training ended with {code}, the slice is {state or 'gone'}", flush=True)
        if state != "ACTIVE":
            shell.run(where.delete())
            ready, failed = False, 0
        if failed:
            sleep(poll)
    print(f"given up after {restarts} restarts", flush=True)
    return _finish(where, shell, folder, RETRY)


def _train_once(where: Slice, train: Sequence[str], shell: Shell, variables: dict[str, str]) -> int:
    """The exit code of training on the first worker of each slice, or gcloud's where that cannot be had."""
    code = shell.run(where.on_workers(where.train_script(train, variables)))
    if not code:
        return 0
    told = shell.ask(where.on_workers(f"cat {CODE}", "0")) or ""
    codes = [int(word) for word in told.split() if word.isdecimal() and int(word)]
    return next((c for c in codes if c in common.HOPELESS), codes[0] if codes else code)


def _finish(where: Slice, shell: Shell, folder: Path, code: int) -> int:
    logs(where, shell, folder)
    if shell.run(where.delete()):
        print(f"{where.name} has not been given back, and costs money: --action=delete", flush=True)
    return code


def _state(where: Slice, shell: Shell) -> str:
    """Of the queued resource; "" where there is none."""
    return (shell.ask(where.state(), "ACTIVE") or "").strip()


def _obtain(where: Slice, shell: Shell, poll: float, sleep: Callable[[float], None]) -> None:
    """Asks for the slice unless it is there, and waits until it is."""
    state = "" if shell.dry_run else _state(where, shell)
    if state in LOST:
        shell.must(where.delete())
        state = ""
    if not state:
        shell.must(where.queue())
    while (state := _state(where, shell)) != "ACTIVE":
        if state not in WAITING:
            raise UserError(
                f"the queued resource is {state or 'gone'}", where=where.name, code=Exit.IO_ERROR,
                help="gcloud compute tpus queued-resources describe says why",
            )  # fmt: skip
        print(f"{where.name} is {state}", flush=True)
        sleep(poll)


FLAGS = flags.FlagValues()
ACTIONS = ("queue", "create", "setup", "train", "logs", "delete", "keep")
_ACTION = flags.DEFINE_string("action", None, ", ".join(ACTIONS), flag_values=FLAGS)
_NAME = flags.DEFINE_string("name", None, "of the slice", flag_values=FLAGS)
_TOPOLOGY = flags.DEFINE_string("topology", None, "such as v5e:4x4, or v5p:2x2x4*2", flag_values=FLAGS)
_ZONE = flags.DEFINE_string("zone", None, "such as us-west4-a", flag_values=FLAGS)
_PROJECT = flags.DEFINE_string("project", "", "gcloud's own where this is empty", flag_values=FLAGS)
_RUNTIME = flags.DEFINE_string("runtime", "", "TPU software version; by the chip", flag_values=FLAGS)
_SPOT = flags.DEFINE_bool("spot", False, "cheap capacity that may be taken away", flag_values=FLAGS)
_RESERVED = flags.DEFINE_bool("reserved", False, "of a reservation", flag_values=FLAGS)
_NFS = flags.DEFINE_string("nfs", "", "HOST:/SHARE:/MOUNTPOINT, mounted by setup", flag_values=FLAGS)
_PYTHON = flags.DEFINE_string("python", "python3.11", "on the workers", flag_values=FLAGS)
_XLA = flags.DEFINE_string(
    "xla_flags", "tpu-stack", "sets of launch/xla_flags.py, with commas", flag_values=FLAGS
)
_RESTARTS = flags.DEFINE_integer("restarts", 100, "of keep, at most", lower_bound=0, flag_values=FLAGS)
_LOGS = flags.DEFINE_string("logs", "logs", "folder for logs, on this machine", flag_values=FLAGS)
_POLL = flags.DEFINE_float(
    "poll", 30.0, "seconds between looks at the queue", lower_bound=0, flag_values=FLAGS
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "print the commands, run none", flag_values=FLAGS)


def main(train: list[str]) -> int:
    """Reads the flags, and does one action."""
    for flag, example in (
        ("action", "keep"),
        ("name", "t5-base"),
        ("topology", "v5e:4x4"),
        ("zone", "us-west4-a"),
    ):
        if not FLAGS[flag].value:
            raise UserError(
                f"--{flag} is missing", where=f"--{flag}", help=f"--{flag}={example}, for example"
            )
    action = _ACTION.value or ""
    if action not in ACTIONS:
        raise UserError(f"no action {action!r}", where="--action", help=did_you_mean(action, ACTIONS))
    topology = topologies.parse(_TOPOLOGY.value or "")
    if topology.chip.platform != "tpu":
        raise UserError(
            f"{topology.name} is no TPU", where="--topology", help="--topology=v5e:4x4, for example"
        )
    for flag, pattern, example in (
        ("zone", "[a-z0-9-]+", "us-west4-a"),
        ("project", "[a-z0-9.:-]*", "my-project"),
        ("nfs", r"([^\s:]+:/[^\s:]*:/[^\s:]+)?", "HOST:/SHARE:/MOUNTPOINT"),
        ("python", r"[\w./-]+", "python3.11"),
    ):
        if not re.fullmatch(pattern, FLAGS[flag].value or ""):
            raise UserError(
                f"{FLAGS[flag].value!r} cannot be the {flag}", where=f"--{flag}", help=f"--{flag}={example}"
            )
    if _SPOT.value and _RESERVED.value:
        raise UserError("capacity is --spot or --reserved, not both", where="--spot")
    if not math.isfinite(_POLL.value):
        raise UserError(f"--poll is {_POLL.value}", where="--poll", help="--poll=30")
    where = Slice(
        name=common.check_name(_NAME.value or ""), topology=topology, zone=_ZONE.value or "",
        project=_PROJECT.value, runtime=_RUNTIME.value, spot=_SPOT.value, reserved=_RESERVED.value,
        nfs=_NFS.value, python=_PYTHON.value,
    )  # fmt: skip
    if topology.slices > 1 and where.workers > AT_ONCE:
        raise UserError(
            f"gcloud reaches {AT_ONCE} workers of several slices at a time, and {topology.name} has {where.workers}",
            where="--topology",
            help="smaller slices, one slice, or launch.gke",
        )
    shell, variables = Shell(_DRY_RUN.value), xla_flags.environment(_XLA.value)
    match action:
        case "queue":
            shell.must(where.queue())
        case "create":
            shell.must(where.create())
        case "setup":
            setup(where, shell, pack(where, shell))
        case "train":
            return shell.run(where.on_workers(where.train_script(train, variables)))
        case "logs":
            if missed := logs(where, shell, Path(_LOGS.value)):
                raise UserError(
                    f"the logs of {missed} of {where.workers} workers could not be fetched",
                    where=where.name,
                    code=Exit.IO_ERROR,
                )
        case "delete":
            queued = shell.dry_run or _state(where, shell)
            shell.must(where.delete() if queued else where.delete_vm())
        case "keep":
            try:
                return keep(
                    where, train, shell, variables=variables, restarts=_RESTARTS.value,
                    folder=Path(_LOGS.value), poll=_POLL.value,
                )  # fmt: skip
            except KeyboardInterrupt:
                print(f"{where.name} may still be there, and cost money: --action=delete gives it back")
                raise
    return 0


if __name__ == "__main__":
    common.start(main, FLAGS)
