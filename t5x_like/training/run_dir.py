"""The folder of a run: who works in it, what was asked for, and what happened.

config.json    the resolved configuration; a run starts again from it alone
config.txt     its values that are not defaults, for people
parameters.txt every parameter: shape, logical axes, partition over the mesh, bytes on a device
command.txt    every command that worked on the run, with its time (UTC)
env.json       versions, devices, mesh and commit of the latest command
log.txt        what was printed, with its time (UTC); stacks of a process that got no further
events.jsonl   started, resumed, saved, validated, skipped, interrupted, ...: one object a line, UTC
data.json      what the run reads; says what changed when the data are others
metrics.jsonl  see training/metrics.py        tb/  the same for TensorBoard
checkpoints/   see training/checkpoints.py    tokenizer/  a copy of the tokenizer
lock           held by the process that trains; lock.json says which that is
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
from filelock import FileLock, Timeout

from t5x_like.errors import Exit, UserError
from t5x_like.training import distributed

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "sentencepiece")
_SWITCHES = (
    "XLA_FLAGS", "LIBTPU_INIT_ARGS", "JAX_PLATFORMS", "JAX_COMPILATION_CACHE_DIR", "GLIBC_TUNABLES",
)  # fmt: skip
"""Environment variables worth recording; no others are, so that no secret ever lands in a run."""


class RunDir:
    """Paths and small writes of one run directory. Make one by `open_for_training`, or to read by `RunDir(path)`.

    Attributes:
      writes: false on all but the first process of several; nothing is written then.
    """

    def __init__(self, path: str | Path, *, writes: bool = True):
        self.path, self.writes = Path(path), writes
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.jsonl"
        self.log_file = self.path / ("log.txt" if writes else f"log.{jax.process_index()}.txt")
        self.tensorboard = self.path / "tb"
        self.parameters = self.path / "parameters.txt"
        self.checkpoints = self.path / "checkpoints"
        self.tokenizer = self.path / "tokenizer"

    def event(self, kind: str, **fields: Any) -> None:
        """Appends a line to events.jsonl. A full disk is no reason to stop: the line is then lost."""
        if not self.writes:
            return
        line = json.dumps({"time": utc_now(), "event": kind, **fields}, default=str)
        try:
            with (self.path / "events.jsonl").open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError:
            pass

    def write_data(self, description: Mapping[str, Any]) -> None:
        """Writes data.json (data/changes.py)."""
        if self.writes:
            write_atomically(self.path / "data.json", json.dumps(description, indent=1) + "\n")

    def read_data(self) -> dict[str, Any]:
        """data.json; empty where it is not there or cannot be understood."""
        try:
            value = json.loads((self.path / "data.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def events(self) -> list[dict[str, Any]]:
        """The lines of events.jsonl in order; what a kill cut off is left out."""
        try:
            lines = (self.path / "events.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            with suppress(ValueError, RecursionError):
                if isinstance(value := json.loads(line), dict):
                    found.append(value)
        return found

    def say(self, text: str) -> None:
        """Prints lines, and logs them."""
        print(text, flush=True)
        self.log(text)

    def log(self, text: str) -> None:
        """Appends lines to log.txt, each with its time; likewise."""
        if not self.writes:
            return
        now = utc_now()
        try:
            with self.log_file.open("a", encoding="utf-8") as file:
                file.write("".join(f"{now}  {line}\n" for line in text.splitlines()))
        except OSError:
            pass

    def describe(
        self, config_json: str, config_text: str, devices: list[str], mesh: dict[str, int] | None = None
    ) -> None:
        """Writes config.json, config.txt and env.json, and adds to command.txt."""
        if not self.writes:
            return
        write_atomically(self.config, config_json)
        write_atomically(self.path / "config.txt", config_text + "\n")
        write_atomically(self.path / "env.json", json.dumps(environment(devices, mesh), indent=2) + "\n")
        with (self.path / "command.txt").open("a", encoding="utf-8") as file:
            file.write(f"{utc_now()}  {command()}\n")


@contextmanager
def open_for_training(path: str | Path, *, fresh: bool = False) -> Iterator[RunDir]:
    """Makes the run directory where needed, proves that it can be written, and holds its lock.

    Of several processes the first does so for all; it must see the same directory as they do.

    Args:
      path: of the run directory.
      fresh: moves a run that is already there aside, to PATH.old-TIME; nothing is deleted.

    Raises:
      UserError: it cannot be written (`Exit.CANNOT_WRITE`), or another process works in it (`Exit.LOCKED`).
    """
    directory = Path(path).expanduser().resolve()
    lock: FileLock | None = None
    with distributed.together():
        if distributed.is_first():
            lock = _occupy(directory, fresh)
    with distributed.together():
        if not directory.is_dir():
            raise UserError(
                "the run directory that the first process has made is not here",
                where=str(directory),
                help="name a --workdir on a file system that all hosts share",
                code=Exit.CANNOT_WRITE,
            )
    opened = RunDir(directory, writes=lock is not None)
    try:
        yield opened
    except Exception as e:
        opened.log(str(e) if isinstance(e, UserError) else traceback.format_exc())
        raise
    finally:
        if lock is not None:
            with suppress(OSError):  # a disk that is read-only by now hides no other error
                (directory / "lock.json").unlink(missing_ok=True)
            lock.release()


def _occupy(directory: Path, fresh: bool) -> FileLock:
    _prepare(directory)
    lock = _lock(directory)
    if fresh and any((directory / name).exists() for name in ("config.json", "checkpoints")):
        aside = directory.with_name(
            f"{directory.name}.old-{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%SZ}"
        )
        try:
            directory.rename(aside)  # the lock moves along, so that nobody slips in between
        except OSError as e:
            lock.release()
            raise _cannot_write(directory, e) from None
        _prepare(directory)
        old, lock = lock, _lock(directory)
        old.release()
        print(f"--fresh: the run that was here is now {aside}")
    return lock


def _prepare(directory: Path) -> None:
    """Creates the folder and probes it: write, sync, rename, remove."""
    probe = directory / f".probe-{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(probe, "can this folder be written?\n")
        probe.unlink()
    except OSError as e:
        raise _cannot_write(directory, e) from None


def _cannot_write(directory: Path, error: OSError) -> UserError:
    return UserError(
        f"the run directory cannot be written: {error}",
        where=str(directory),
        help="name another, or mend its permissions or its disk",
        code=Exit.CANNOT_WRITE,
    )


def _lock(directory: Path) -> FileLock:
    """An operating system lock: a process that dies, however it dies, does not hold it any more."""
    lock = FileLock(directory / "lock", timeout=0)
    try:
        lock.acquire()
        facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": utc_now()}
        write_atomically(directory / "lock.json", json.dumps(facts) + "\n")
    except Timeout:
        raise UserError(
            f"another process works in this run directory: {holder(directory)}",
            where=str(directory),
            help="wait for it, stop it (SIGTERM saves first), or name another --workdir",
            code=Exit.LOCKED,
        ) from None
    except OSError as e:  # of another owner, or a folder; a file system without locks
        lock.release()
        raise _cannot_write(directory, e) from None
    return lock


def holder(directory: Path) -> str:
    """Who says to be at work in a run directory, or was when it was killed."""
    try:
        facts = json.loads((directory / "lock.json").read_text(encoding="utf-8"))
        return f"pid {facts['pid']} on {facts['host']}, since {facts['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it has not said which"


def write_atomically(path: Path, text: str) -> None:
    """Writes a file that is either absent (or as it was) or whole, also after a power cut."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """fsync of a file or of a directory's entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def utc_now() -> str:
    """Now, as 2026-11-22T19:30:00Z."""
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"


def command() -> str:
    """The command line of this process, as one would type it."""
    return shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]])


def environment(devices: list[str], mesh: dict[str, int] | None = None) -> dict[str, Any]:
    """What a reader of the run needs to know of the machine: versions, devices, commit, a few switches."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "time": utc_now(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "devices": devices,
        "mesh": mesh or {},
        "commit": _commit(),
        "environment": {name: os.environ[name] for name in _SWITCHES if name in os.environ},
    }


def _commit() -> str | None:
    """The commit of the source tree, with `+changes` where it has uncommitted ones; None outside a checkout."""
    here = str(Path(__file__).parent)
    try:
        head = subprocess.run(
            ["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
        )
        if head.returncode:
            return None
        status = subprocess.run(
            ["git", "-C", here, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=5,
        )
        return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")
    except (OSError, subprocess.TimeoutExpired):
        return None
