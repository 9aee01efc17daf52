"""F12, F13, F16: files of a checkpoint that are not as they were written, and a clock that is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from t5x_like.errors import Exit
from t5x_like.faulting import tiny, trials
from t5x_like.faulting.report import Outcome, judged
from t5x_like.faulting.trials import Bench
from t5x_like.training.checkpoint_reader import Reader

STEPS = 12


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for at in {0, len(content) // 2, len(content) - 1} if content else ():
        content[at] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


WAYS: dict[str, Callable[[Path], object]] = {
    "bits flipped": _flip,
    "truncated": _cut,
    "emptied": lambda path: path.write_bytes(b""),
    "zeroed": _zero,
    "deleted": Path.unlink,
}


def every_file(bench: Bench, ways: tuple[str, ...]) -> Outcome:
    """Each file of the newest checkpoint, its record too, in turn: the checkpoint before it must be found, and the
    file be named; then one of each kind by the command itself, which must come to the same end.
    """
    run = tiny.make(bench.data, steps=STEPS)
    reference, failures, tried = bench.reference(run), [], 0
    workdir = shutil.copytree(reference, bench.new("damage"))
    (workdir / "finished").unlink()
    said: list[str] = []
    store = Reader(workdir / "checkpoints", say=said.append)
    newest = store.directory / str(STEPS)
    files = [newest.with_suffix(".json"), *sorted(p for p in newest.rglob("*") if p.is_file())]
    for path in files:
        content = path.read_bytes()
        for way in ways:
            WAYS[way](path)
            if path.exists() and path.read_bytes() == content:
                continue  # an empty file emptied
            tried += 1
            said.clear()
            record = store.newest_good()
            if record is None or record.step != STEPS - 2 or not any(str(path) in line for line in said):
                failures.append(f"{path} {way}: found {record and record.step}, said {said}")
            path.write_bytes(content)
    if (record := store.newest_good()) is None or record.step != STEPS:
        failures.append("the checkpoint is damaged where all is as it was")
    for way in ways:
        victim = max(files, key=lambda p: p.stat().st_size) if way != "deleted" else files[0]
        again = shutil.copytree(workdir, bench.new("restart"))
        WAYS[way](again / victim.relative_to(workdir))
        code, log = bench.finish(run, again)
        kept = list((again / "checkpoints").glob(f"unusable-{STEPS}*"))
        if code != Exit.DONE or f"checkpoint {STEPS} is damaged" not in log:
            failures.append(f"restart with {victim.name} {way}: exit code {code}: {log[-300:]}")
        elif not kept or not trials.events(again, "damaged"):
            failures.append(f"restart with {victim.name} {way}: not set aside, or no event")
        else:
            for path in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if trouble := trials.differences(reference, again):
                failures.append(f"restart with {victim.name} {way}: {trouble}")
    return judged(
        f"each of {len(files)} files of the newest {', '.join(ways)}: {tried} times; and {len(ways)} restarts",
        "noticed every time, the file named, the checkpoint before used, the damaged one set aside and kept, an event "
        "written; restarts came to the same end, bit-equal",
        failures,
        files=len(files),
        tried=tried,
    )


def clock(bench: Bench) -> Outcome:
    """F16: the second part of a run sees yesterday, in another time zone."""
    run = tiny.make(bench.data, steps=STEPS)
    reference, workdir, failures = bench.reference(run), bench.new("clock"), []
    bench.finish(run, workdir, fault="run.step:8")
    newest = max(trials.sealed(workdir))
    inject = {"clock": -86400.0}
    code, log = bench.finish(run, workdir, inject=inject, TZ="America/St_Johns")
    if code != Exit.DONE or f"resuming step {newest} " not in log:
        failures.append(f"exit code {code}: {log[-300:]}")
    elif trouble := trials.differences(reference, workdir):
        failures.append(trouble)
    if not all(event["time"].endswith("Z") for event in trials.events(workdir)):
        failures.append("a time that is not UTC")
    return judged(
        "the clock set back a day and the time zone changed before the run is continued",
        "continued from the newest step, whatever its time; all times in UTC; bit-equal",
        failures,
    )
