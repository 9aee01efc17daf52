"""F08 to F11: disks that are full, read-only, out of inodes or quota, or gone. A small file system in memory stands
for the disk; mounting one needs root, without which these rows are skipped.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from t5x_like.errors import Exit
from t5x_like.faulting import tiny, trials
from t5x_like.faulting.report import Outcome, judged
from t5x_like.faulting.trials import Bench
from t5x_like.training.checkpoints import MAX_FAILURES, Checkpoints

CANNOT_MOUNT = Outcome(injected="", outcome="this machine lets us mount nothing", verdict="skipped")


@contextlib.contextmanager
def disk(folder: Path, options: str) -> Iterator[bool]:
    """Mounts a file system in memory at `folder`; False where that is not allowed."""
    folder.mkdir()
    done = _mount("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        yield done
    finally:
        if done:
            _mount("umount", "--lazy", str(folder))


def _mount(*command: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    return False


PAUSE = "run.step:6:stop"
"""The run stops itself before its sixth step, so that the disk changes at a known moment."""


def _fill(folder: Path, free: int) -> Path:
    """A file that leaves so many bytes of the disk free."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while (left := shutil.disk_usage(folder).free - free) > 0:
            file.write(bytes(min(left, 1 << 20)))
    return ballast


def full_at_save(bench: Bench) -> Outcome:
    """F08: from the sixth step on, room for a checkpoint and a third; then more room."""
    run = tiny.make(bench.data, steps=24, checkpoints=Checkpoints(every=tiny.EVERY, keep_last=99))
    reference, workdir, failures = bench.reference(run), bench.new("full"), list[str]()
    files = [p for p in (reference / "checkpoints" / "24").rglob("*") if p.is_file()]
    size = sum(-(-p.stat().st_size // 4096) * 4096 for p in files)
    with disk(workdir, "size=16m") as mounted:
        if not mounted:
            return CANNOT_MOUNT
        with bench.start(run, workdir, fault=PAUSE) as process:
            process.until(lambda: process.stopped)
            ballast = _fill(workdir, size * 4 // 3)
            process.signal(signal.SIGCONT)
            code, log = process.wait(), process.log
        there, events = trials.sealed(workdir), trials.events(workdir, "saved")
        if (
            code != Exit.IO_ERROR
            or log.count("could not be saved") < MAX_FAILURES
            or "no space left" not in log
        ):
            failures.append(f"exit code {code}: {log[-400:]}")
        if not there or there[-1] < events[-1]["step"]:
            failures.append(f"complete are {there}, said to be saved: {[e['step'] for e in events]}")
        ballast.unlink()
        code, log = bench.finish(run, workdir)
        if code != Exit.DONE or f"resuming step {there[-1] if there else 0}" not in log:
            failures.append(f"with room again: exit code {code}: {log[-300:]}")
        elif trouble := trials.differences(reference, workdir):
            failures.append(trouble)
    return judged(
        "a disk that becomes full between two checkpoints",
        f"training went on through {MAX_FAILURES - 1} saves that failed and stopped at the next with 74 and one line; "
        f"checkpoints up to {there[-1] if there else 0} intact; with room again the end bit-equal",
        failures,
    )


def full_for_logs(bench: Bench) -> Outcome:
    """F09: no room for anything but checkpoints."""
    run = tiny.make(bench.data, steps=24)
    reference, workdir, failures = bench.reference(run), bench.new("full-logs"), []
    elsewhere = bench.new("elsewhere")
    elsewhere.mkdir()
    with disk(workdir, "size=4m") as mounted:
        if not mounted:
            return CANNOT_MOUNT
        (workdir / "checkpoints").symlink_to(elsewhere)
        with bench.start(run, workdir, fault=PAUSE) as process:
            process.until(lambda: process.stopped)
            _fill(workdir, 0)
            process.signal(signal.SIGCONT)
            process.until(lambda: "metrics are not being written" in process.log or not process.alive)
            (workdir / "ballast").unlink()
            code, log = process.wait(), process.log
        if code != Exit.DONE or "metrics are not being written" not in log:
            failures.append(f"exit code {code}: {log[-400:]}")
        elif trials.figures(workdir) != trials.figures(reference):
            failures.append("figures are missing, or others")
        shutil.copytree(elsewhere, bench.new("copied"))
        if trials.state_digest(workdir) != trials.state_digest(reference):
            failures.append("the final states differ")
    return judged(
        "a disk that is full for metrics, events and log, for a while",
        "told, training went on; once there "
        "was room the lines that had been kept were written; all figures there, bit-equal",
        failures,
    )


@contextlib.contextmanager
def _read_only(folder: Path) -> Iterator[bool]:
    """Makes a folder read-only, for root too; False where that is not allowed."""
    bound = _mount("mount", "--bind", str(folder), str(folder))
    done = bound and _mount("mount", "-o", "remount,bind,ro", str(folder))
    try:
        yield done
    finally:
        if bound:
            _mount("umount", "--lazy", str(folder))


def read_only(bench: Bench) -> Outcome:
    """F10: the checkpoints from the middle on, and all of it from the beginning."""
    run, failures = tiny.make(bench.data, steps=24), list[str]()
    reference, workdir = bench.reference(run), bench.new("read-only")
    with bench.start(run, workdir, fault="checkpoint.committed:2:stop") as process:  # between two saves
        process.until(lambda: process.stopped)
        with _read_only(workdir / "checkpoints") as mounted:
            if not mounted:
                return CANNOT_MOUNT
            process.signal(signal.SIGCONT)
            code, log = process.wait(), process.log
    if code != Exit.IO_ERROR or "ead-only" not in log or "Traceback" in log:
        failures.append(f"in the middle: exit code {code}: {log[-400:]}")
    with _read_only(workdir):
        code, log = bench.finish(run, workdir)
    if code != Exit.CANNOT_WRITE or str(workdir) not in log or "resuming" in log:
        failures.append(f"at the start: exit code {code}: {log[-300:]}")
    code, log = bench.finish(run, workdir)
    if code != Exit.DONE:
        failures.append(f"writable again: exit code {code}: {log[-300:]}")
    elif trouble := trials.differences(reference, workdir):
        failures.append(trouble)
    return judged(
        "the checkpoints' folder that becomes read-only, and a run directory that is",
        f"became: 74 after {MAX_FAILURES} saves in a row had failed; is: 73 before anything is compiled, naming it; "
        "writable again: the end bit-equal",
        failures,
    )


def quota(bench: Bench) -> Outcome:
    """F11: EDQUOT at the sync of a file, and a file system without inodes."""
    run = tiny.make(bench.data, steps=12, checkpoints=Checkpoints(every=2, keep_last=2))
    reference, workdir, failures = bench.reference(run), bench.new("quota"), []
    code, log = bench.finish(run, workdir, fault="checkpoint.sync:60:quota")
    if code != Exit.DONE or os.strerror(errno.EDQUOT) not in log:
        failures.append(f"one save over quota: exit code {code}: {log[-300:]}")
    elif trouble := trials.differences(reference, workdir):
        failures.append(trouble)
    workdir = bench.new("inodes")
    saved = len(list((reference / "checkpoints" / "12").rglob("*"))) + 2
    others = sum(not p.is_relative_to(reference / "checkpoints") for p in reference.rglob("*"))
    with disk(
        workdir, f"size=64m,nr_inodes={others + saved * 5 // 2}"
    ) as mounted:  # two checkpoints and a half
        if mounted:
            code, log = bench.finish(run, workdir)
            if code not in (Exit.IO_ERROR, Exit.CANNOT_WRITE) or "Traceback" in log:
                failures.append(f"no inodes: exit code {code}: {log[-400:]}")
            _mount("mount", "-o", "remount,nr_inodes=100000", str(workdir))
            code, log = bench.finish(run, workdir)
            if code != Exit.DONE:
                failures.append(f"with inodes again: exit code {code}: {log[-300:]}")
            elif trouble := trials.differences(reference, workdir):
                failures.append(trouble)
    return judged(
        "a save over quota; a disk without inodes",
        "over quota: told, the next save succeeds, the end bit-equal; "
        "no inodes: stopped in one line, and with inodes again the end bit-equal",
        failures,
    )


def removed(bench: Bench) -> Outcome:
    """The run directory is deleted while the run goes on."""
    run, workdir, failures = tiny.make(bench.data, steps=40), bench.new("removed"), []
    with bench.start(run, workdir, fault=PAUSE) as process:
        process.until(lambda: process.stopped)
        shutil.rmtree(workdir, ignore_errors=True)
        process.signal(signal.SIGCONT)
        code, log = process.wait(), process.log
    if code != Exit.IO_ERROR or "has been removed" not in log or "Traceback" in log:
        failures.append(f"exit code {code}: {log[-400:]}")
    return judged(
        "the run directory deleted in the middle of a run",
        "stopped with 74 at the next save, saying that the directory is gone",
        failures,
    )
