"""Runs in processes of their own, and whether two of them came to the same end."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import jax
import numpy as np

from t5x_like import config
from t5x_like.training import metrics
from t5x_like.training.run import Run

DEADLINE = 900.0
"""Seconds that any trial may take on a loaded machine; one that takes longer hangs."""

NUMBERS = ("loss", "cross_entropy", "perplexity", "accuracy", "grad_norm", "learning_rate", "tokens_seen",
           "skipped_updates")  # fmt: skip
"""The figures of metrics.jsonl that do not depend on the clock."""


@functools.cache
def _server() -> ForkServerContext:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["t5x_like.faulting.child"])
    return context


class Process:
    """A run that has been started; `log` is what it has printed so far."""

    def __init__(
        self, arguments: list[str], output: Path, programs: Path, environment: dict[str, str], inject: Any
    ):
        from t5x_like.faulting import child

        output.write_text("")
        job = {
            "arguments": arguments,
            "environment": {"JAX_PLATFORMS": "cpu", "T5X_LIKE_NO_REEXEC": "1", **environment},
            "output": str(output),
            "programs": str(programs),
            "inject": inject,
        }
        self._output = output
        self._process = _server().Process(target=child.main, args=(json.dumps(job),))
        self._process.start()

    @property
    def log(self) -> str:
        return self._output.read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    @property
    def stopped(self) -> bool:
        """Whether it is stopped, as by SIGSTOP (Linux)."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        except OSError:
            return False

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, seconds: float = DEADLINE) -> int:
        """Its exit code; minus the number of the signal that ended it.

        Raises:
          TimeoutError: it did not end in time; it is then killed.
        """
        self._process.join(seconds)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            self._process.join()
            raise TimeoutError(f"no end within {seconds:.0f} s:\n{self.log[-2000:]}")
        return code

    def until(self, condition: Callable[[], bool], seconds: float = DEADLINE) -> bool:
        """Waits until `condition` holds or the process has ended; whether it holds."""
        end = time.monotonic() + seconds
        while not condition():
            if not self.alive or time.monotonic() > end:
                return condition()
            time.sleep(0.005)
        return True

    def end(self) -> None:
        """Whatever state it is in."""
        if self.alive:
            self._process.kill()
        self._process.join()


@dataclasses.dataclass
class Bench:
    """A folder for trials of one run and a reference that nothing disturbed; beside it the data and the compiled
    programs, which the next bench there finds."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder = self.folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._number = 0

    @property
    def data(self) -> Path:
        return self.folder.parent / "data"

    def new(self, name: str) -> Path:
        """A workdir that does not exist yet."""
        self._number += 1
        return self.folder / f"{self._number:03d}-{name}"

    @contextlib.contextmanager
    def start(
        self,
        run: Run,
        workdir: Path,
        *flags: str,
        fault: str = "",
        inject: Any = None,
        log: Path | None = None,
        **environment: str,
    ) -> Iterator[Process]:
        """Starts `python -m t5x_like.train`; ended at the latest when the context is left.

        Args:
          fault: T5X_LIKE_FAULT.
          inject: see `child`.
          log: takes the output; default: beside the workdir.
        """
        described = workdir.with_suffix(".config.json")
        described.write_text(config.to_json(run))
        arguments = [f"--config={described}", f"--workdir={workdir}", *flags]
        if not any(flag.startswith("--cpu_devices=") for flag in flags):
            arguments.append("--cpu_devices=1")
        environment["T5X_LIKE_FAULT"] = fault
        output = log or workdir.with_suffix(".log")
        process = Process(arguments, output, self.folder.parent / "programs", environment, inject or {})
        try:
            yield process
        finally:
            process.end()

    def finish(self, run: Run, workdir: Path, *flags: str, **how: Any) -> tuple[int, str]:
        """Runs to the end; (exit code, what was printed)."""
        with self.start(run, workdir, *flags, **how) as process:
            return process.wait(), process.log

    @contextlib.contextmanager
    def start_all(
        self, run: Run, workdir: Path, count: int, *flags: str, **how: Any
    ) -> Iterator[list[Process]]:
        """Starts a run of `count` processes on this machine."""
        with contextlib.ExitStack() as started:
            with socket.socket() as probe:
                probe.bind(("localhost", 0))
                port = probe.getsockname()[1]
            shared = (f"--coordinator_address=localhost:{port}", f"--num_processes={count}", *flags)
            processes = []
            for number in range(count):
                one = (*shared, f"--process_id={number}")
                log = workdir.with_suffix(f".{number}.log")
                processes.append(started.enter_context(self.start(run, workdir, *one, log=log, **how)))
            yield processes

    def finish_all(
        self, run: Run, workdir: Path, count: int = 1, *flags: str, **how: Any
    ) -> tuple[list[int], str]:
        """Runs all processes to the end; (exit codes, what they printed)."""
        if count == 1:
            code, log = self.finish(run, workdir, *flags, **how)
            return [code], log
        with self.start_all(run, workdir, count, *flags, **how) as processes:
            codes = [process.wait() for process in processes]
            return codes, "".join(process.log for process in processes)

    def reference(self, run: Run, processes: int = 1) -> Path:
        """The workdir of `run` undisturbed; made once."""
        key = hashlib.sha256(config.to_json(run).encode()).hexdigest()[:12]
        workdir = self.folder / f"reference-{key}-{processes}"
        if not (workdir / "finished").exists():
            codes, log = self.finish_all(run, workdir, processes)
            if any(codes):
                raise RuntimeError(f"the undisturbed run failed with {codes}:\n{log}")
            (workdir / "finished").touch()
        return workdir


def lines(workdir: Path) -> int:
    """Steps (and validations) that a run has told of so far."""
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def figures(workdir: Path) -> list[tuple[Any, ...]]:
    """What a run measured at each step, floats to the bit, times left out."""
    return [
        (line["step"], line["kind"], *((name, line.get(name)) for name in NUMBERS))
        for line in metrics.read(workdir / "metrics.jsonl")
        if line["kind"] in ("train", "eval")
    ]


def losses(workdir: Path) -> dict[int, float | None]:
    """step -> training loss."""
    return {
        line["step"]: line["loss"]
        for line in metrics.read(workdir / "metrics.jsonl")
        if line["kind"] == "train"
    }


def events(workdir: Path, kind: str | None = None) -> list[dict[str, Any]]:
    lines = (workdir / "events.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines if line.endswith("}")]
    return [event for event in found if kind is None or event["event"] == kind]


def sealed(workdir: Path) -> list[int]:
    """Steps whose checkpoint is complete by the names that there are."""
    folder = workdir / "checkpoints"
    return sorted(int(p.stem) for p in folder.glob("[0-9]*.json") if (folder / p.stem).is_dir())


def saving(workdir: Path) -> bool:
    """Whether a checkpoint is being written, or was when the run died."""
    return any((workdir / "checkpoints").glob("saving-*"))


def state_digest(workdir: Path) -> str:
    """sha256 of every array of the last checkpoint, and of what the record knows of the run's place in its data."""
    from orbax.checkpoint import v1 as ocp

    from t5x_like.training.checkpoint_reader import Reader, paths

    store = Reader(workdir / "checkpoints")
    record = store.newest_good()
    assert record is not None
    wanted: dict[str, Any] = {"params": {}, "rest": {}}
    for path, kind in record.arrays.items():
        dtype, _, shape = kind.rstrip("]").partition("[")
        folder, name = wanted["rest"], path
        if path.startswith("params/"):
            *folders, name = path.split("/")
            folder = functools.reduce(lambda tree, part: tree.setdefault(part, {}), folders, wanted)
        # Onto this process's one device, whatever devices and processes it was saved from.
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        folder[name] = jax.ShapeDtypeStruct([*map(int, filter(None, shape.split(",")))], dtype, sharding=here)
    loaded = ocp.load_checkpointables(str(store.directory / str(record.step)), wanted)
    digest = hashlib.sha256(repr((record.step, record.tokens, record.skips, record.data)).encode())
    for path, leaf in sorted(paths(loaded).items()):
        digest.update(path.encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()


def names(workdir: Path) -> list[str]:
    """What lies in a run directory and among its checkpoints."""
    return sorted(p.name for p in (*workdir.iterdir(), *(workdir / "checkpoints").iterdir()))


def differences(reference: Path, workdir: Path) -> str:
    """How a run that was disturbed and finished differs from one that was not, or an empty text: figures of every
    step and the final state to the bit, names of the files."""
    ours, theirs = figures(workdir), figures(reference)
    if ours != theirs:
        pairs = [pair for pair in zip(ours, theirs, strict=False) if pair[0] != pair[1]]
        return f"figures differ: {pairs[0] if pairs else (len(ours), len(theirs))}"
    if state_digest(workdir) != state_digest(reference):
        return "the final states differ"
    left = set(names(workdir)) ^ (set(names(reference)) - {"finished"})
    return f"other files: {sorted(left)}" if left else ""
